//! Why a request is not answered, in OpenAI's shape.

use std::fmt::Display;

use serde_json::{Value, json};

/// A status and an error body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The field of the body that is at fault, if one is.
    pub param: Option<String>,
    /// OpenAI's word for the case, where clients look at it.
    pub code: Option<&'static str>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Refusal {
    /// Of a request as a whole.
    pub fn new(status: u16, message: impl Display) -> Self {
        Refusal { status, param: None, code: None, message: message.to_string() }
    }

    /// Of a request because of one field of its body.
    pub fn field(name: &str, message: impl Display) -> Self {
        Refusal { param: Some(name.into()), ..Refusal::new(400, format!("`{name}` {message}")) }
    }

    /// The same with OpenAI's word for the case.
    pub fn coded(self, code: &'static str) -> Self {
        Refusal { code: Some(code), ..self }
    }

    /// The body.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            401 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}
