/** One float32 and its bits. */
const float = new Float32Array(1);
const word = new Int32Array(float.buffer);

/** 2^(e − 25) for the biased exponents of normal float16 numbers, whose significand counts in units of 2^−10. */
const unitOfExponent = Float64Array.from({ length: 31 }, (_, e) => 2 ** (e - 25));

/** The value of an IEEE 754 binary16 number; every one is exact in float32. */
export function halfToFloat(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  let magnitude: number;
  if (exponent === 31) magnitude = fraction === 0 ? Infinity : NaN;
  else if (exponent === 0) magnitude = fraction * 2 ** -24;
  else magnitude = (1024 + fraction) * unitOfExponent[exponent]!;
  return bits & 0x8000 ? -magnitude : magnitude;
}

/** The little-endian binary16 number at a byte offset. */
export function readHalf(bytes: Uint8Array, offset: number): number {
  return halfToFloat(bytes[offset]! | (bytes[offset + 1]! << 8));
}

/** The value of a bfloat16 number: the upper half of a float32. */
export function bfloatToFloat(bits: number): number {
  word[0] = bits << 16;
  return float[0]!;
}

/** The nearest binary16 number, ties to even; magnitudes from 65520 on become infinite, NaN becomes 0x7e00. */
export function floatToHalf(value: number): number {
  float[0] = value;
  const bits = word[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520
  if (magnitude < 0x38800000) {
    // Below 2^−14, the smallest normal number: count units of 2^−24.
    const shift = 126 - (magnitude >> 23);
    return shift > 24 ? sign : sign | shiftToEven((magnitude & 0x7fffff) | 0x800000, shift);
  }
  // Rebias the exponent from 127 to 15; a carry out of the significand raises it by one, as it should.
  return sign | shiftToEven(magnitude - 0x38000000, 13);
}

/** value / 2^shift, rounded to the nearest integer, ties to even. */
function shiftToEven(value: number, shift: number): number {
  const odd = (value >> shift) & 1;
  return (value + (1 << (shift - 1)) - 1 + odd) >> shift;
}
