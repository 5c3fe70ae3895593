//! Complex floating-point numbers that carry a bound of their own error.

/// A number known up to `error`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    pub re: f64,
    pub im: f64,
    /// How far the true value may be from here.
    pub error: f64,
}

/// Twice the unit roundoff, for operations that the hardware rounds once or twice.
const ROUND: f64 = 4.5e-16;

impl Value {
    pub const ZERO: Value = Value { re: 0.0, im: 0.0, error: 0.0 };

    pub fn exact(re: f64, im: f64) -> Value {
        Value { re, im, error: 0.0 }
    }

    /// The float nearest to a real number.
    pub fn rounded(re: f64) -> Value {
        Value { re, im: 0.0, error: re.abs() * ROUND }
    }

    fn new(re: f64, im: f64, error: f64) -> Value {
        Value { re, im, error: error + re.hypot(im) * ROUND }
    }

    pub fn size(&self) -> f64 {
        self.re.hypot(self.im)
    }

    pub fn is_real(&self) -> bool {
        self.im.abs() <= self.error
    }

    /// Are two values the same? `None` when the bounds are too wide to say.
    pub fn equals(&self, other: &Value) -> Option<bool> {
        let bound = 4.0 * (self.error + other.error);
        let size = self.size().max(other.size());
        let gap = (self.re - other.re).hypot(self.im - other.im);
        if gap > bound {
            return Some(false);
        }
        // Values that agree to fewer than nine digits may be neighbours, as at a wide bound all are.
        // Zero has no relative precision: there the bound itself has to be small.
        (bound <= 1e-9 * size || (size <= bound && bound <= 1e-12)).then_some(true)
    }

    pub fn negated(&self) -> Value {
        Value { re: -self.re, im: -self.im, error: self.error }
    }

    pub fn plus(&self, other: &Value) -> Value {
        Value::new(self.re + other.re, self.im + other.im, self.error + other.error)
    }

    pub fn times(&self, other: &Value) -> Value {
        let error =
            self.size() * other.error + other.size() * self.error + self.error * other.error;
        let rounding = self.size() * other.size() * ROUND;
        Value::new(
            self.re * other.re - self.im * other.im,
            self.re * other.im + self.im * other.re,
            error + if self.im == 0.0 && other.im == 0.0 { 0.0 } else { rounding },
        )
    }

    /// `None` when the divisor may be zero.
    pub fn divided(&self, other: &Value) -> Option<Value> {
        let size = other.size();
        if size <= 2.0 * other.error || size == 0.0 {
            return None;
        }
        let square = size * size;
        let re = (self.re * other.re + self.im * other.im) / square;
        let im = (self.im * other.re - self.re * other.im) / square;
        let quotient =
            if other.im == 0.0 { (self.re / other.re, self.im / other.re) } else { (re, im) };
        let error = (self.error + self.size() / size * other.error) / (size - other.error);
        let rounding = self.size() / size * 2.0 * ROUND;
        Some(Value::new(quotient.0, quotient.1, error + rounding))
    }

    fn exponential(&self) -> Option<Value> {
        let size = self.re.exp();
        let error = size * self.error.exp_m1() + size * (1.0 + self.im.abs()) * ROUND;
        let value = Value::new(size * self.im.cos(), size * self.im.sin(), error);
        (self.error < 1.0).then_some(value)
    }

    /// The principal branch.
    pub fn logarithm(&self) -> Option<Value> {
        let size = self.size();
        if size <= 2.0 * self.error || size == 0.0 {
            return None;
        }
        // A negative real number lies on the cut: take its upper side whatever the rounding says.
        let im = if self.is_real() { 0.0 } else { self.im };
        let error = self.error / (size - self.error) + ROUND;
        Some(Value::new(size.ln(), im.atan2(self.re), error))
    }

    pub fn power(&self, exponent: &Value) -> Option<Value> {
        let whole = exponent.error == 0.0 && exponent.im == 0.0 && exponent.re.fract() == 0.0;
        if whole && exponent.re.abs() <= 64.0 {
            let (mut result, mut square) = (Value::exact(1.0, 0.0), *self);
            let mut left = exponent.re.abs() as u32;
            while left > 0 {
                if left % 2 == 1 {
                    result = result.times(&square);
                }
                square = square.times(&square);
                left /= 2;
            }
            return if exponent.re < 0.0 {
                Value::exact(1.0, 0.0).divided(&result)
            } else {
                Some(result)
            };
        }
        if self.size() == 0.0 && self.error == 0.0 && exponent.is_real() && exponent.re > 0.0 {
            return Some(Value::ZERO);
        }
        let value = self.logarithm()?.times(exponent).exponential()?;
        let positive = self.is_real() && self.re > 0.0 && exponent.is_real();
        Some(if positive { Value { im: 0.0, ..value } } else { value })
    }

    pub fn sine(&self) -> Value {
        let (re, im) = (self.re.sin() * self.im.cosh(), self.re.cos() * self.im.sinh());
        Value::new(re, im, self.wave_error())
    }

    pub fn cosine(&self) -> Value {
        let (re, im) = (self.re.cos() * self.im.cosh(), -self.re.sin() * self.im.sinh());
        Value::new(re, im, self.wave_error())
    }

    /// The derivative of sine and cosine is at most cosh of the imaginary part.
    fn wave_error(&self) -> f64 {
        let rounding = if self.im == 0.0 { 0.0 } else { ROUND };
        self.im.cosh() * (self.error * (1.0 + self.error) + rounding)
    }

    pub fn hyperbolic(&self, name: &str) -> Option<Value> {
        let (up, down) = (self.exponential()?, self.negated().exponential()?);
        let half = Value::exact(0.5, 0.0);
        let cosh = up.plus(&down).times(&half);
        let sinh = up.plus(&down.negated()).times(&half);
        let one = Value::exact(1.0, 0.0);
        match name {
            "sinh" => Some(sinh),
            "cosh" => Some(cosh),
            "tanh" => sinh.divided(&cosh),
            "coth" => cosh.divided(&sinh),
            "sech" => one.divided(&cosh),
            _ => one.divided(&sinh),
        }
    }

    /// The inverse functions on the real line; `slope` bounds how errors grow.
    pub fn inverse_function(name: &str, x: f64, error: f64) -> Option<Value> {
        let (value, slope) = match name {
            "arcsin" => (x.asin(), (1.0 - x * x).recip().sqrt()),
            "arccos" => (x.acos(), (1.0 - x * x).recip().sqrt()),
            "arctan" => (x.atan(), 1.0),
            "arccot" => (std::f64::consts::FRAC_PI_2 - x.atan(), 1.0),
            "arsinh" => (x.asinh(), 1.0),
            "arcosh" => (x.acosh(), (x * x - 1.0).recip().sqrt()),
            _ => (x.atanh(), (1.0 - x * x).recip().abs()),
        };
        let grown = if error == 0.0 { 0.0 } else { 2.0 * slope * error };
        let result = Value::new(value, 0.0, grown + 4.0 * ROUND);
        (value.is_finite() && result.error < 1e-3).then_some(result)
    }
}

/// Γ on the positive real line (Lanczos, g = 7, nine terms: Godfrey's coefficients).
pub fn gamma(x: f64, error: f64) -> Option<Value> {
    const G: f64 = 7.0;
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if !(x > 0.05 && x < 150.0) {
        return None;
    }
    let y = x - 1.0;
    let series =
        TERMS[1..].iter().zip(1..).fold(TERMS[0], |sum, (term, k)| sum + term / (y + f64::from(k)));
    let base = y + G + 0.5;
    let value = (2.0 * std::f64::consts::PI).sqrt() * base.powf(y + 0.5) * (-base).exp() * series;
    // The derivative is Γ·ψ, and |ψ(x)| is below ln(x) + 1/x + 1.
    let slope = value * (x.ln().abs() + 1.0 / x + 1.0);
    Some(Value { re: value, im: 0.0, error: slope * error + value * 1e-12 })
}
