//! A JSON number as JavaScript writes it, for hashes, search values and shown numbers agree on one spelling.

use serde_json::Number;

/// `String(n)` of JavaScript: no fraction where there is none, exponents from 1e21 up and below 1e-6.
///
/// Whole numbers that a double can't hold keep all their digits: nothing is lost that the source gave.
pub(crate) fn js_number(number: &Number) -> String {
    match number.as_f64() {
        Some(double) if number.is_f64() => js_double(double),
        _ => number.to_string(),
    }
}

fn js_double(double: f64) -> String {
    if double == 0.0 {
        return "0".to_owned();
    }
    // The shortest digits that read back the same, as `d.ddde±x`: ECMAScript starts from the same digits.
    let scientific = format!("{:e}", double.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let sign = if double < 0.0 { "-" } else { "" };
    format!("{sign}{}", place_point(&digits, point))
}

/// ECMAScript's Number::toString: `digits` with the decimal point after the first `point` of them.
fn place_point(digits: &str, point: i32) -> String {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    match point {
        _ if count <= point && point <= 21 => format!("{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            format!("{whole}.{fraction}")
        }
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let exponent = point - 1;
            let sign = if exponent < 0 { '-' } else { '+' };
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{first}{dot}{rest}e{sign}{}", exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let number: Number = serde_json::from_str(text).expect("a number");
        assert_eq!(js_number(&number), expected, "{text}");
    }

    #[test]
    fn as_javascript() {
        check("0", "0");
        check("-0.0", "0");
        check("1", "1");
        check("1.0", "1");
        check("-1.5", "-1.5");
        check("8080", "8080");
        check("-0.25", "-0.25");
        check("0.1", "0.1");
        check("1e3", "1000");
        check("1.25e2", "125");
        check("12345.678", "12345.678");
        check("1e20", "100000000000000000000");
        check("123456789012345680000.0", "123456789012345680000");
        check("1e21", "1e+21");
        check("1.5e21", "1.5e+21");
        check("1e-6", "0.000001");
        check("1.5e-6", "0.0000015");
        check("1e-7", "1e-7");
        check("1.5e-7", "1.5e-7");
        check("-1e300", "-1e+300");
        check("5e-324", "5e-324");
        check("9007199254740993", "9007199254740993");
        check("18446744073709551615", "18446744073709551615");
    }
}
