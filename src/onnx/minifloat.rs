//! Floating-point formats of 4 to 8 bits, decoded to `f64`.
//!
//! Sources: [OCP 8-bit floating point][ofp8], [OCP microscaling formats][mx], and
//! [ONNX's float8](https://onnx.ai/onnx/technical/float8.html) for the `FNUZ` forms.
//!
//! [ofp8]: https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-2023-12-01-pdf-1
//! [mx]: https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf

/// Which codes are not finite numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// None: every code is a number.
    Nothing,
    /// As IEEE 754: the largest exponent is infinity or NaN.
    Ieee,
    /// All ones, of either sign, is NaN; there is no infinity.
    AllOnes,
    /// The code of minus zero is NaN; there is no infinity.
    MinusZero,
}

/// A format: one sign bit, then exponent, then mantissa.
#[derive(Debug, Clone, Copy)]
pub struct Minifloat {
    /// Bits of the exponent.
    pub exponent: u32,
    /// Bits of the mantissa.
    pub mantissa: u32,
    /// Bias of the exponent.
    pub bias: i32,
    /// Codes that are not numbers.
    pub special: Special,
}

const fn format(exponent: u32, mantissa: u32, bias: i32, special: Special) -> Minifloat {
    Minifloat {
        exponent,
        mantissa,
        bias,
        special,
    }
}

/// `FLOAT8E4M3FN`.
pub const E4M3FN: Minifloat = format(4, 3, 7, Special::AllOnes);
/// `FLOAT8E4M3FNUZ`.
pub const E4M3FNUZ: Minifloat = format(4, 3, 8, Special::MinusZero);
/// `FLOAT8E5M2`.
pub const E5M2: Minifloat = format(5, 2, 15, Special::Ieee);
/// `FLOAT8E5M2FNUZ`.
pub const E5M2FNUZ: Minifloat = format(5, 2, 16, Special::MinusZero);
/// `FLOAT4E2M1`.
pub const E2M1: Minifloat = format(2, 1, 1, Special::Nothing);
/// `FLOAT6E2M3`.
pub const E2M3: Minifloat = format(2, 3, 1, Special::Nothing);
/// `FLOAT6E3M2`.
pub const E3M2: Minifloat = format(3, 2, 3, Special::Nothing);

impl Minifloat {
    /// The value of a code; bits above the format's are ignored.
    pub fn decode(self, code: u8) -> f64 {
        let code = u32::from(code);
        let ones = (1 << self.exponent) - 1;
        let sign = code >> (self.exponent + self.mantissa) & 1;
        let exponent = code >> self.mantissa & ones;
        let mantissa = code & ((1 << self.mantissa) - 1);
        let largest = mantissa == (1 << self.mantissa) - 1;
        let magnitude = match self.special {
            Special::MinusZero if sign == 1 && exponent == 0 && mantissa == 0 => return f64::NAN,
            Special::AllOnes if exponent == ones && largest => f64::NAN,
            Special::Ieee if exponent == ones && mantissa == 0 => f64::INFINITY,
            Special::Ieee if exponent == ones => f64::NAN,
            // Subnormal numbers have no hidden one, and the exponent of the smallest normal numbers.
            _ => {
                let hidden = if exponent == 0 { 0 } else { 1 << self.mantissa };
                let power = exponent.max(1) as i32 - self.bias - self.mantissa as i32;
                f64::from(hidden + mantissa) * f64::from(power).exp2()
            }
        };
        if sign == 1 { -magnitude } else { magnitude }
    }
}

/// The value of a `FLOAT8E8M0` code: a power of two.
pub fn decode_e8m0(code: u8) -> f64 {
    if code == 0xff {
        f64::NAN
    } else {
        (f64::from(code) - 127.0).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_those_of_the_specifications() {
        // (format, largest finite code and value, smallest positive value of code 1)
        let cases = [
            (E4M3FN, 0x7e, 448.0, 2f64.powi(-9)),
            (E4M3FNUZ, 0x7f, 240.0, 2f64.powi(-10)),
            (E5M2, 0x7b, 57344.0, 2f64.powi(-16)),
            (E5M2FNUZ, 0x7f, 57344.0, 2f64.powi(-17)),
            (E2M1, 0x7, 6.0, 0.5),
            (E2M3, 0x1f, 7.5, 0.125),
            (E3M2, 0x1f, 28.0, 0.0625),
        ];
        for (format, code, largest, smallest) in cases {
            assert_eq!(format.decode(code), largest, "{format:?}");
            assert_eq!(format.decode(1), smallest, "{format:?}");
            assert_eq!(format.decode(0), 0.0, "{format:?}");
            let sign = 1 << (format.exponent + format.mantissa);
            assert_eq!(format.decode(code | sign), -largest, "{format:?}");
        }
    }

    #[test]
    fn codes_that_are_not_numbers() {
        assert!(E4M3FN.decode(0x7f).is_nan() && E4M3FN.decode(0xff).is_nan());
        assert!(E4M3FNUZ.decode(0x80).is_nan() && E5M2FNUZ.decode(0x80).is_nan());
        assert_eq!(E5M2.decode(0x7c), f64::INFINITY);
        assert_eq!(E5M2.decode(0xfc), f64::NEG_INFINITY);
        assert!(E5M2.decode(0x7d).is_nan());
        assert!(decode_e8m0(0xff).is_nan());
        assert_eq!(decode_e8m0(0), 2f64.powi(-127));
        assert_eq!(decode_e8m0(127), 1.0);
    }
}
