//! Exact canonical forms: quotients of sums of monomials with rational exponents.
//!
//! Two expressions with the same form are equal; where [`Exact::certain`] says so, two different
//! forms are different values. Every step is paid from a budget of work.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::budget::Budget;
pub use super::budget::Stop;
use super::monomial::{Exponent, Monomial, checked, cost_of, merged, power_of, product_of, sum_of};

/// What a monomial is made of. All but the prime numbers are taken for independent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Atom {
    /// A prime, or what trial division could not split: stands for its roots.
    Root(BigInt),
    I,
    Pi,
    E,
    Symbol(String),
    /// A number that no algebra reaches (Lindemann), by its canonical text: `sin(1)`, `ln 2`.
    Transcendental(String),
    /// Anything else, by its canonical text: `sin(x)`, `(x+1)^(1/2)`.
    Opaque(String),
}

/// Sums of monomials, none with the coefficient zero.
type Poly = BTreeMap<Monomial, BigRational>;

/// A quotient of two sums; the denominator is one, or has several terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    pub over: Poly,
    pub under: Poly,
}

/// Longer numbers stay powers.
const MOST_BITS: u64 = 20_000;

/// What a step of exact arithmetic costs in steps of the budget.
const STEP: u64 = 16;

/// The atoms met so far, shared by both sides of a comparison, and the work left.
pub struct Exact {
    atoms: Vec<Atom>,
    numbers: BTreeMap<Atom, usize>,
    pub budget: Budget,
}

fn constant(value: BigRational) -> Poly {
    if value.is_zero() { Poly::new() } else { Poly::from([(Vec::new(), value)]) }
}

impl Form {
    pub fn rational(value: BigRational) -> Form {
        Form { over: constant(value), under: constant(BigRational::one()) }
    }

    pub fn integer(value: i64) -> Form {
        Form::rational(BigRational::from_integer(value.into()))
    }

    /// Its value if it is a rational number.
    pub fn value(&self) -> Option<BigRational> {
        let plain = |poly: &Poly| match poly.len() {
            0 => Some(BigRational::zero()),
            1 => poly.get(&Vec::new()).cloned(),
            _ => None,
        };
        Some(plain(&self.over)? / plain(&self.under)?)
    }

    /// Its one term, if it has no more.
    pub fn term(&self) -> Option<(&Monomial, &BigRational)> {
        let single = self.over.len() == 1 && self.under.len() == 1;
        single.then(|| self.over.first_key_value()).flatten()
    }

    pub fn is_zero(&self) -> bool {
        self.over.is_empty()
    }
}

impl Exact {
    pub fn new() -> Self {
        Exact { atoms: Vec::new(), numbers: BTreeMap::new(), budget: Budget::new() }
    }

    /// Pays for some work.
    pub fn pay(&self, work: u64) -> Result<(), Stop> {
        self.budget.pay_from_half(work.saturating_mul(STEP))
    }

    fn atom(&mut self, atom: Atom) -> Form {
        self.atom_power(atom, Exponent::one())
    }

    fn atom_power(&mut self, atom: Atom, exponent: Exponent) -> Form {
        let number = match self.numbers.get(&atom) {
            Some(number) => *number,
            None => {
                self.atoms.push(atom.clone());
                self.numbers.insert(atom, self.atoms.len() - 1);
                self.atoms.len() - 1
            }
        };
        let one = BigRational::one();
        Form { over: Poly::from([(vec![(number, exponent)], one.clone())]), under: constant(one) }
    }

    pub fn opaque(&mut self, key: String) -> Form {
        self.atom(Atom::Opaque(key))
    }

    pub fn transcendental(&mut self, key: String) -> Form {
        self.atom(Atom::Transcendental(key))
    }

    pub fn symbol(&mut self, name: &str) -> Form {
        self.atom(Atom::Symbol(name.to_owned()))
    }

    pub fn pi(&mut self) -> Form {
        self.atom(Atom::Pi)
    }

    pub fn i(&mut self) -> Form {
        self.atom(Atom::I)
    }

    pub fn e(&mut self) -> Form {
        self.atom(Atom::E)
    }

    /// A canonical text: the same for two forms only if they are the same.
    pub fn key(&self, form: &Form) -> Result<String, Stop> {
        for (monomial, value) in form.over.iter().chain(&form.under) {
            let bits = value.numer().bits() + value.denom().bits();
            self.pay(1 + monomial.len() as u64 + bits * bits / 65_536)?;
        }
        Ok(format!("{:?}/{:?}", Self::spelled(&form.over), Self::spelled(&form.under)))
    }

    fn spelled(poly: &Poly) -> Vec<(String, &Monomial)> {
        poly.iter().map(|(monomial, value)| (value.to_string(), monomial)).collect()
    }

    /// Is it certainly not zero, unless it is the form of zero? So it is without opaque parts, with
    /// normal roots and at most one transcendental number.
    /// (That π and e are independent is believed, not proved.)
    pub fn certain(&self, form: &Form) -> bool {
        let mut transcendental = None;
        let sure = |(number, exponent): &(usize, Exponent)| match &self.atoms[*number] {
            Atom::Opaque(_) => false,
            // Two of them might be algebraically related.
            Atom::Transcendental(_) => *transcendental.get_or_insert(*number) == *number,
            Atom::Root(_) => exponent.floor().is_zero(),
            Atom::Symbol(_) | Atom::Pi | Atom::E | Atom::I => exponent.is_integer(),
        };
        form.over.keys().chain(form.under.keys()).flatten().all(sure)
    }

    pub fn same(&mut self, a: &Form, b: &Form) -> Result<bool, Stop> {
        if a.under == b.under {
            return Ok(a.over == b.over);
        }
        Ok(self.multiply(&a.over, &b.under)? == self.multiply(&b.over, &a.under)?)
    }

    pub fn add(&mut self, a: Form, b: Form) -> Result<Form, Stop> {
        let (mut over, right, under) = if a.under == b.under {
            (a.over, b.over, a.under)
        } else {
            let left = self.multiply(&a.over, &b.under)?;
            let right = self.multiply(&b.over, &a.under)?;
            (left, right, self.multiply(&a.under, &b.under)?)
        };
        for (monomial, value) in right {
            self.add_term(&mut over, monomial, value)?;
        }
        Ok(Form { over, under })
    }

    pub fn times(&mut self, a: &Form, b: &Form) -> Result<Form, Stop> {
        let over = self.multiply(&a.over, &b.over)?;
        let under = self.multiply(&a.under, &b.under)?;
        self.simplified(Form { over, under })
    }

    /// A denominator of one term moves into the numerator.
    fn simplified(&mut self, form: Form) -> Result<Form, Stop> {
        if form.under.len() != 1
            || form.under.contains_key(&Vec::new()) && form.under[&vec![]].is_one()
        {
            return Ok(form);
        }
        let (monomial, value) = form.under.first_key_value().ok_or(Stop::Meaningless)?;
        let inverse: Monomial = monomial.iter().map(|(atom, power)| (*atom, -power)).collect();
        let (inverse, factor) = self.normal(inverse, value.recip())?;
        let over = self.multiply(&form.over, &Poly::from([(inverse, factor)]))?;
        Ok(Form { over, under: constant(BigRational::one()) })
    }

    pub fn inverse(&mut self, form: &Form) -> Result<Form, Stop> {
        if form.is_zero() {
            return Err(Stop::Meaningless);
        }
        self.simplified(Form { over: form.under.clone(), under: form.over.clone() })
    }

    fn add_term(
        &self,
        poly: &mut Poly,
        monomial: Monomial,
        value: BigRational,
    ) -> Result<(), Stop> {
        use std::collections::btree_map::Entry;
        self.pay(1)?;
        match poly.entry(monomial) {
            Entry::Vacant(entry) => drop(entry.insert(value)),
            Entry::Occupied(mut entry) => {
                self.pay(cost_of(entry.get(), &value))?;
                *entry.get_mut() = sum_of(entry.get(), &value);
                if entry.get().is_zero() {
                    entry.remove();
                }
            }
        }
        Ok(())
    }

    fn multiply(&mut self, a: &Poly, b: &Poly) -> Result<Poly, Stop> {
        let one = |poly: &Poly| poly.len() == 1 && poly.get(&Vec::new()).is_some_and(One::is_one);
        if one(a) {
            return Ok(b.clone());
        }
        if one(b) {
            return Ok(a.clone());
        }
        let mut product = Poly::new();
        for (left, x) in a {
            for (right, y) in b {
                self.pay((left.len() + right.len()) as u64 / 4 + cost_of(x, y))?;
                let (monomial, value) = self.normal(merged(left, right)?, product_of(x, y))?;
                self.add_term(&mut product, monomial, value)?;
            }
        }
        Ok(product)
    }

    /// Whole powers of numbers and of `i` belong to the coefficient.
    fn normal(
        &mut self,
        mut monomial: Monomial,
        mut value: BigRational,
    ) -> Result<(Monomial, BigRational), Stop> {
        for (number, exponent) in &mut monomial {
            let whole = exponent.floor().to_integer();
            match &self.atoms[*number] {
                Atom::Root(root) if whole != 0 => {
                    let bits = root.bits() * whole.unsigned_abs();
                    if bits <= MOST_BITS {
                        let power = power_of(&BigRational::from_integer(root.clone()), whole);
                        self.budget.pay_from_half(STEP * (bits / 64 + cost_of(&value, &power)))?;
                        value = product_of(&value, &power);
                        *exponent -= whole;
                    }
                }
                Atom::I if exponent.is_integer() => {
                    let turns = whole.rem_euclid(4);
                    if turns >= 2 {
                        value = -value;
                    }
                    *exponent = Exponent::from_integer(turns % 2);
                }
                _ => {}
            }
        }
        monomial.retain(|(_, exponent)| !exponent.is_zero());
        Ok((monomial, value))
    }

    /// A form to a rational power.
    pub fn power(&mut self, base: &Form, exponent: &BigRational) -> Result<Form, Stop> {
        let small = |value: &BigInt| value.to_i64().filter(|v| v.abs() < 1 << 40);
        let parts = small(exponent.numer()).zip(small(exponent.denom()));
        let (over, under) = parts.ok_or(Stop::Budget)?;
        let exponent = Exponent::new(over, under);
        if base.is_zero() {
            return if exponent > Exponent::zero() {
                Ok(base.clone())
            } else {
                Err(Stop::Meaningless)
            };
        }
        if let Some((monomial, value)) = base.term() {
            let (monomial, value) = (monomial.clone(), value.clone());
            if let Some(form) = self.term_power(&monomial, &value, exponent)? {
                return Ok(form);
            }
        } else if exponent.is_integer() && over.abs() <= 32 {
            return self.whole_power(base, over);
        }
        // √(4a+4b) is 2√(a+b): a positive number in front of all terms comes out.
        let content = base.over.first_key_value().map(|(_, v)| v.abs()).ok_or(Stop::Budget)?;
        let plain = self.times(base, &Form::rational(content.recip()))?;
        let key = format!("({})^(1/{under})", self.key(&plain)?);
        let root = self.atom_power(Atom::Opaque(key), Exponent::from_integer(over));
        let front = self.power_of_number(&content, exponent)?;
        self.times(&root, &front)
    }

    fn whole_power(&mut self, base: &Form, exponent: i64) -> Result<Form, Stop> {
        let base = if exponent < 0 { self.inverse(base)? } else { base.clone() };
        let mut result = Form::integer(1);
        for _ in 0..exponent.unsigned_abs() {
            result = self.times(&result, &base)?;
        }
        Ok(result)
    }

    /// One term to a power, or `None` where the power of a product is not the product of powers.
    fn term_power(
        &mut self,
        monomial: &Monomial,
        value: &BigRational,
        exponent: Exponent,
    ) -> Result<Option<Form>, Stop> {
        let positive =
            |number: usize| matches!(self.atoms[number], Atom::Root(_) | Atom::Pi | Atom::E);
        let splits = exponent.is_integer()
            || monomial.iter().all(|(number, _)| positive(*number))
            || (monomial.len() == 1
                && monomial[0].1.is_one()
                && matches!(self.atoms[monomial[0].0], Atom::Symbol(_)))
                && value.is_positive();
        if !splits {
            return Ok(None);
        }
        let mut raised = Vec::with_capacity(monomial.len());
        for (number, power) in monomial {
            raised.push((*number, checked(power, &exponent, true)?));
        }
        let front = if value.is_negative() && !exponent.is_integer() {
            let root = self.power_of_number(&-value, exponent)?;
            match *exponent.denom() {
                2 => {
                    let i = self.i();
                    let turned = self.whole_power(&i, exponent.numer().rem_euclid(4))?;
                    self.times(&turned, &root)?
                }
                // The real root, as schools have it.
                odd if odd % 2 == 1 && exponent.numer() % 2 != 0 => {
                    self.times(&root, &Form::integer(-1))?
                }
                odd if odd % 2 == 1 => root,
                _ => return Ok(None),
            }
        } else {
            self.power_of_number(value, exponent)?
        };
        let (monomial, factor) = self.normal(raised, BigRational::one())?;
        let rest =
            Form { over: Poly::from([(monomial, factor)]), under: constant(BigRational::one()) };
        self.times(&front, &rest).map(Some)
    }

    /// A number to a rational power; a negative one only to a whole power.
    fn power_of_number(&mut self, value: &BigRational, exponent: Exponent) -> Result<Form, Stop> {
        let bits = value.numer().bits().max(value.denom().bits());
        if value.is_one() {
            return Ok(Form::integer(1));
        }
        if exponent.is_integer() {
            let size = exponent.numer().unsigned_abs();
            let work = bits.saturating_mul(size);
            if work <= MOST_BITS {
                self.pay(work / 64)?;
                return Ok(Form::rational(power_of(value, *exponent.numer())));
            }
            if value.is_negative() {
                let sign = if exponent.numer() % 2 == 0 { 1 } else { -1 };
                let size = self.power_of_number(&-value, exponent)?;
                return self.times(&size, &Form::integer(sign));
            }
        }
        let mut result = Form::integer(1);
        for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
            for (root, count) in self.factors(part)? {
                let power = checked(&exponent, &Exponent::from_integer(sign * count), true)?;
                let factor = self.atom_power(Atom::Root(root), power);
                let (monomial, _) = factor.over.first_key_value().ok_or(Stop::Budget)?;
                let (monomial, value) = self.normal(monomial.clone(), BigRational::one())?;
                let factor = Form { over: Poly::from([(monomial, value)]), ..factor };
                result = self.times(&result, &factor)?;
            }
        }
        Ok(result)
    }

    /// Primes with their counts; what trial division leaves of a large number counts as one.
    pub fn factors(&mut self, number: &BigInt) -> Result<Vec<(BigInt, i64)>, Stop> {
        let mut found = Vec::new();
        self.pay(number.bits() / 16)?;
        let Some(mut left) = number.to_u128() else {
            return Ok(vec![(number.clone(), 1)]);
        };
        let mut prime = 2u128;
        while prime * prime <= left && prime < 2_000 {
            let mut count = 0;
            while left % prime == 0 {
                left /= prime;
                count += 1;
            }
            if count > 0 {
                found.push((prime.into(), count));
            }
            prime += if prime == 2 { 1 } else { 2 };
        }
        self.pay(prime as u64 / 64)?;
        if left > 1 {
            let root = left.isqrt();
            let (left, count) = if root * root == left { (root, 2) } else { (left, 1) };
            found.push((left.into(), count));
        }
        Ok(found)
    }

    /// The logarithm of a number or of a product of positive constants.
    pub fn logarithm(&mut self, form: &Form) -> Result<Option<Form>, Stop> {
        let Some((monomial, value)) = form.term() else { return Ok(None) };
        let constant =
            |number: usize| matches!(self.atoms[number], Atom::Root(_) | Atom::Pi | Atom::E);
        if !value.is_positive() || !monomial.iter().all(|(number, _)| constant(*number)) {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for (number, sign) in [(value.numer().clone(), 1), (value.denom().clone(), -1)] {
            for (root, count) in self.factors(&number)? {
                parts.push((Atom::Root(root), Exponent::from_integer(sign * count)));
            }
        }
        for (number, exponent) in monomial {
            parts.push((self.atoms[*number].clone(), *exponent));
        }
        let mut sum = Form::integer(0);
        for (atom, exponent) in parts {
            let factor = BigRational::new((*exponent.numer()).into(), (*exponent.denom()).into());
            let term = match atom {
                Atom::E => Form::integer(1),
                atom @ Atom::Root(_) => self.transcendental(format!("ln {atom:?}")),
                atom => self.opaque(format!("ln {atom:?}")),
            };
            let term = self.times(&term, &Form::rational(factor))?;
            sum = self.add(sum, term)?;
        }
        Ok(Some(sum))
    }

    /// The numerator without common factors in front: equal for `f = 0` and `c·f = 0`. Also the
    /// sign of what was divided out.
    pub fn up_to_factor(&mut self, form: &Form) -> Result<(Poly, bool), Stop> {
        let mut lowest: BTreeMap<usize, Exponent> = BTreeMap::new();
        for (number, exponent) in form.over.keys().flatten() {
            if exponent.is_negative() {
                let low = lowest.entry(*number).or_insert(*exponent);
                *low = (*low).min(*exponent);
            }
        }
        let up: Monomial = lowest.iter().map(|(number, low)| (*number, -low)).collect();
        let whole = self.multiply(&form.over, &Poly::from([(up, BigRational::one())]))?;
        let Some(first) = whole.values().next().cloned() else { return Ok((whole, true)) };
        let positive = first.is_positive();
        for value in whole.values() {
            self.pay(cost_of(value, &first))?;
        }
        Ok((whole.into_iter().map(|(m, value)| (m, value / &first)).collect(), positive))
    }
}
