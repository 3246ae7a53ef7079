//! JSON objects as protobuf Structs and back: nulls stay, numbers are doubles.

use prost_types::{ListValue, Struct, Value as Message, value::Kind};
use serde_json::{Map, Number, Value};

/// The Struct that holds the same keys and values. Numbers become doubles, as they are in Backstage.
pub fn to_struct(object: Map<String, Value>) -> Struct {
    Struct { fields: object.into_iter().map(|(key, value)| (key, to_message(value))).collect() }
}

/// The JSON object that holds the same keys and values.
///
/// A double without a fraction that a 64-bit integer holds becomes an integer (as JavaScript prints it); what JSON cannot
/// write (NaN, infinity, a value without a kind) becomes null.
pub fn from_struct(message: &Struct) -> Map<String, Value> {
    message.fields.iter().map(|(key, value)| (key.clone(), from_message(value))).collect()
}

fn to_message(value: Value) -> Message {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(to_message).collect() }),
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    Message { kind: Some(kind) }
}

fn from_message(message: &Message) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(*flag),
        Some(Kind::NumberValue(number)) => from_double(*number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(from_message).collect(),
        Some(Kind::StructValue(object)) => Value::Object(from_struct(object)),
    }
}

fn from_double(number: f64) -> Value {
    // 2^63: below it a double without a fraction is exactly a 64-bit integer.
    const INTEGERS_END: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && number.abs() < INTEGERS_END {
        Value::from(number as i64)
    } else {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}
