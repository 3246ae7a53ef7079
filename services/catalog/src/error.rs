//! A processing error, as status items show it: Backstage's class names and texts, causes within.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Why an entity could not be processed; the entity keeps its last good version and shows this beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{name}: {message}")]
pub struct ProcessingError {
    /// Backstage's class of the error: `InputError`, `TypeError`, `Error`.
    pub name: String,
    /// The whole sentence; where there is a cause it ends with `; caused by <cause>`.
    pub message: String,
    /// The field at fault, as a JSON pointer (`/spec/owner`), where one field is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<ProcessingError>>,
}

impl ProcessingError {
    /// An error of a class, without a cause.
    pub fn new(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: message.into(), field: None, cause: None }
    }

    /// What is wrong with the input (Backstage's `InputError`).
    pub fn input(message: impl Into<String>) -> Self {
        Self::new("InputError", message)
    }

    /// What is of the wrong type or form (JavaScript's `TypeError`).
    pub fn type_error(message: impl Into<String>) -> Self {
        Self::new("TypeError", message)
    }

    /// The same, and which field is at fault.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// An `InputError` that this error caused; it is about the same field.
    pub fn wrapped(self, message: &str) -> Self {
        Self {
            name: "InputError".to_owned(),
            message: format!("{message}; caused by {self}"),
            field: self.field.clone(),
            cause: Some(Box::new(self)),
        }
    }

    /// The item that stands under `status.items` (type `backstage.io/catalog-processing`, level `error`).
    pub fn to_status_item(&self) -> Value {
        json!({
            "type": "backstage.io/catalog-processing",
            "level": "error",
            "message": self.to_string(),
            "error": self.serialized(),
        })
    }

    fn serialized(&self) -> Value {
        let mut object = Map::new();
        object.insert("name".to_owned(), self.name.clone().into());
        object.insert("message".to_owned(), self.message.clone().into());
        if let Some(cause) = &self.cause {
            object.insert("cause".to_owned(), cause.serialized());
        }
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_item_has_the_whole_sentence_and_the_causes() {
        let error = ProcessingError::type_error("/spec/type must be string - type: string")
            .at("/spec/type")
            .wrapped("Policy check failed for component:default/web");
        let sentence = "Policy check failed for component:default/web; caused by TypeError: /spec/type must be string - type: string";
        assert_eq!(error.field.as_deref(), Some("/spec/type"));
        assert_eq!(
            error.to_status_item(),
            json!({
                "type": "backstage.io/catalog-processing",
                "level": "error",
                "message": format!("InputError: {sentence}"),
                "error": {
                    "name": "InputError",
                    "message": sentence,
                    "cause": {"name": "TypeError", "message": "/spec/type must be string - type: string"},
                },
            })
        );
    }
}
