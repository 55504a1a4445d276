import { invariant } from '../base/errors.js';
import {
  createPanelIntegers,
  PANEL_ROWS,
  type PackedDType,
  type PackedLayout,
  packedLayouts,
  packPanel,
} from '../tensor/packed.js';

/**
 * Round to nearest with a search for the best scales: the definition of what `engine quantize` writes, in float32 with
 * every operation rounded (kernels/cpu/quantize_panel.inc gives the same bytes, many times faster).
 *
 * A group's values are approximated by scale · q − shift. Clips of the group's range are tried, each refitted once to its
 * codes by least squares, and the one with the smallest squared error is kept. The row's d and m make the largest scale
 * and shift the codes 255; of the factor codes next to each group's own, the best are kept. For normally distributed
 * weights that leaves 0.03 dB to a search ten times as long.
 */

const round = Math.fround;

/** Clips tried of a group's range, in steps of 1 / 32 of it; also where only the range is to be chosen. */
const NUM_CLIPS = 10;
const SYMMETRIC_CLIPS = 14;
/** Parts of what is cut off a range that are cut off its lower end. */
const LOWER_PARTS = [0, 0.5, 1] as const;

/** Larger magnitudes count as this one, so that no product overflows; rows that stay below the smallest become zeros. */
const LARGEST_WEIGHT = 2 ** 126;
const SMALLEST_WEIGHT = 2 ** -100;

/** Relative to the largest value of the row, 1 … 2. With the smallest row, d and m are still normal bfloat16 numbers. */
const SMALLEST_SCALE = 2 ** -16;
const SMALLEST_MIN = 2 ** -26;
const LARGEST_FACTOR_CODE = 255;

/** How weights of a type are made of codes: scale · q − shift, q from `lowest` to `highest`. */
interface CodeRange {
  readonly lowest: number;
  readonly highest: number;
  /** Whether there is a shift. */
  readonly mins: boolean;
}

function codeRange({ bits, bias, mins }: PackedLayout): CodeRange {
  return bits === 8 ? { lowest: -127, highest: 127, mins } : { lowest: -bias, highest: 15 - bias, mins };
}

/** Two numbers for a group: scale and shift, or their codes c and z. */
interface Factors {
  readonly scale: number;
  readonly shift: number;
}

/** What errors of a matrix's weights do to its outputs, known from calibration; see native/gptq.h. */
export interface ErrorModel {
  /** [columns] how much errors count, 0 … 1. Without: all the same. */
  readonly weights?: Float32Array;
  /**
   * [columns, columns] GPTQ's error feedback (Frantar et al. 2022, arXiv 2210.17323): of an error in column j, column
   * k > j makes up for the part feedback[j][k]. Only those above the diagonal are read.
   */
  readonly feedback?: Float32Array;
}

/** Writes the panel of 16 rows at `offset`. Values must be finite. */
export function quantisePanel(
  dtype: PackedDType,
  rows: Float32Array, // [16, columns]
  columns: number,
  out: Uint8Array,
  offset: number,
  errors: ErrorModel = {},
): void {
  const { groupSize, bias } = packedLayouts[dtype];
  invariant(columns % groupSize === 0 && rows.length === PANEL_ROWS * columns, `a panel of ${columns} columns`);
  const range = codeRange(packedLayouts[dtype]);
  const weights = errors.weights ?? new Float32Array(columns).fill(1);
  const numGroups = columns / groupSize;
  const panel = createPanelIntegers(dtype, columns);
  for (let r = 0; r < PANEL_ROWS; r++) {
    const { values, unit } = normaliseRow(rows.subarray(r * columns, (r + 1) * columns));
    const groups = Array.from({ length: numGroups }, (_, g) => {
      const [begin, end] = [g * groupSize, (g + 1) * groupSize];
      return new GroupSearch(values.subarray(begin, end), weights.subarray(begin, end), range);
    });
    const { d, m, best } = searchRow(groups);
    panel.d[r] = d * unit;
    panel.m[r] = m * unit;
    groups.forEach((group, g) => {
      // With feedback the values of all groups but the first are no longer the same.
      const codes = group.chooseFactorCodes(errors.feedback && g > 0 ? group.search() : best[g]!, d, m);
      panel.scales[r * numGroups + g] = codes.scale;
      panel.mins[r * numGroups + g] = codes.shift;
      const factors = { scale: codes.scale * d, shift: codes.shift * m }; // exact
      const first = g * groupSize;
      if (errors.feedback) feedBack(values, first, group, factors, errors.feedback);
      for (let k = 0; k < groupSize; k++) panel.codes[r * columns + first + k] = group.code(k, factors) + bias;
    });
  }
  packPanel(dtype, panel, columns, out, offset);
}

/** Quantises a row's group in ascending k and subtracts from all later values what they make up for. */
function feedBack(
  values: Float32Array, // [columns]
  first: number,
  group: GroupSearch,
  factors: Factors,
  feedback: Float32Array,
): void {
  const columns = values.length;
  for (let k = 0; k < group.size; k++) {
    const j = first + k;
    const error = round(values[j]! - group.decoded(k, factors));
    for (let later = j + 1; later < columns; later++) {
      values[later] = values[later]! - round(error * feedback[j * columns + later]!);
    }
  }
}

/**
 * The row divided by `unit`, the power of two that makes its largest value 1 … 2: exact, and nothing over- or underflows.
 * A row of zeros has unit 0.
 */
function normaliseRow(row: Float32Array): { values: Float32Array; unit: number } {
  let largest = 0;
  for (const value of row) largest = Math.max(largest, Math.abs(value));
  largest = Math.min(largest, LARGEST_WEIGHT);
  const unit = largest < SMALLEST_WEIGHT ? 0 : powerOfTwoNotAbove(largest);
  const inverse = unit === 0 ? 0 : 1 / unit;
  return {
    values: row.map((value) => Math.min(Math.max(value, -LARGEST_WEIGHT), LARGEST_WEIGHT) * inverse),
    unit,
  };
}

/** The best factors of each group, and the row's d and m they can be coded with. */
function searchRow(groups: readonly GroupSearch[]): { d: number; m: number; best: Factors[] } {
  const best = groups.map((group) => group.search());
  const d = bfloatNotBelow(Math.max(...best.map(({ scale }) => scale)));
  const m = bfloatNotBelow(Math.max(...best.map(({ shift }) => shift)));
  return { d, m: m < SMALLEST_MIN ? 0 : m, best };
}

/** The smallest bfloat16 number that makes `largest` a factor code of at most 255. */
function bfloatNotBelow(largest: number): number {
  float[0] = round(largest * round(1 / LARGEST_FACTOR_CODE));
  word[0] = (word[0]! + 0xffff) & 0xffff0000;
  return float[0]!;
}

function powerOfTwoNotAbove(value: number): number {
  float[0] = value;
  word[0]! &= 0x7f800000;
  return float[0]!;
}

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/** Values of one group of one row. */
class GroupSearch {
  readonly #x: Float32Array;
  readonly #weights: Float32Array; // parallel to x
  readonly #range: CodeRange;

  constructor(x: Float32Array, weights: Float32Array, range: CodeRange) {
    this.#x = x;
    this.#weights = weights;
    this.#range = range;
  }

  /** The best scale and shift before they are coded. */
  search(): Factors {
    const { mins, highest } = this.#range;
    let low = 0;
    let high = this.#x[0]!;
    let largest = 0;
    for (const value of this.#x) {
      low = Math.min(low, value);
      high = Math.max(high, value);
      largest = Math.max(largest, Math.abs(value));
    }
    const width = mins ? round(high - low) : largest;
    const widest = Math.max(round(width * round(1 / highest)), SMALLEST_SCALE);
    let best: Factors = { scale: widest, shift: mins ? Math.max(-low, 0) : 0 };
    let leastError = Infinity;
    const consider = (clip: Factors) => {
      const factors = this.#refit(clip);
      const error = this.error(factors);
      if (!(error < leastError)) return;
      leastError = error;
      best = factors;
    };
    for (let clip = 0; clip < (mins ? NUM_CLIPS : SYMMETRIC_CLIPS); clip++) {
      const scale = round(widest * (1 - clip / 32));
      if (!mins) {
        consider({ scale, shift: 0 });
        continue;
      }
      const cut = round(width - round(scale * highest));
      for (const part of LOWER_PARTS) consider({ scale, shift: Math.max(-round(low + round(cut * part)), 0) });
    }
    return best;
  }

  /** The codes of scale and shift for a row's d and m: of those next to the rounded ones, the best. */
  chooseFactorCodes({ scale, shift }: Factors, d: number, m: number): Factors {
    const { mins } = this.#range;
    const c0 = roundEven(Math.min(round(scale / d), LARGEST_FACTOR_CODE));
    const z0 = roundEven(Math.min(round(shift * (m > 0 ? round(1 / m) : 0)), LARGEST_FACTOR_CODE));
    let best: Factors = { scale: 1, shift: 0 };
    let leastError = Infinity;
    const [reachC, reachZ] = mins ? [1, 2] : [2, 0];
    for (let i = -reachC; i <= reachC; i++) {
      const c = clamp(c0 + i, 1, LARGEST_FACTOR_CODE);
      for (let j = -reachZ; j <= reachZ; j++) {
        const codes = { scale: c, shift: clamp(z0 + j, 0, LARGEST_FACTOR_CODE) };
        const error = this.error({ scale: codes.scale * d, shift: codes.shift * m });
        if (!(error < leastError)) continue;
        leastError = error;
        best = codes;
      }
    }
    return best;
  }

  /** Σ weight · (x − nearest code's value)² */
  error({ scale, shift }: Factors): number {
    const { lowest, highest } = this.#range;
    const x = this.#x;
    const weights = this.#weights;
    const inverse = round(1 / scale);
    const offset = round(shift * inverse);
    let total = 0;
    for (let k = 0; k < x.length; k++) {
      const t = round(round(x[k]! * inverse) + offset);
      const difference = round(t - roundEven(clamp(t, lowest, highest)));
      total = round(total + round(weights[k]! * round(difference * difference)));
    }
    return round(total * round(scale * scale));
  }

  get size(): number {
    return this.#x.length;
  }

  /** The nearest code of value k. */
  code(k: number, { scale, shift }: Factors): number {
    const inverse = round(1 / scale);
    const t = round(round(this.#x[k]! * inverse) + round(shift * inverse));
    return roundEven(clamp(t, this.#range.lowest, this.#range.highest));
  }

  /** The weight it stands for. */
  decoded(k: number, factors: Factors): number {
    return round(round(factors.scale * this.code(k, factors)) - factors.shift);
  }

  /** The scale and shift that fit the codes of these best, by least squares; these, where those make no sense. */
  #refit(factors: Factors): Factors {
    const { lowest, highest, mins } = this.#range;
    const x = this.#x;
    const weights = this.#weights;
    const inverse = round(1 / factors.scale);
    const offset = round(factors.shift * inverse);
    let n = 0; // Σ weight
    let sx = 0; // Σ weight · x, and so on
    let sq = 0;
    let sqq = 0;
    let sqx = 0;
    for (let k = 0; k < x.length; k++) {
      const value = x[k]!;
      const q = roundEven(clamp(round(round(value * inverse) + offset), lowest, highest));
      const wq = round(weights[k]! * q);
      n = round(n + weights[k]!);
      sx = round(sx + round(weights[k]! * value));
      sq = round(sq + wq);
      sqq = round(sqq + round(wq * q));
      sqx = round(sqx + round(wq * value));
    }
    let scale = round(sqx / sqq);
    let shift = 0;
    if (mins) {
      const determinant = round(round(n * sqq) - round(sq * sq));
      const both = round(round(round(sq * sqx) - round(sqq * sx)) / determinant);
      if (both > 0) {
        scale = round(round(round(n * sqx) - round(sq * sx)) / determinant);
        shift = both;
      }
    }
    return scale > SMALLEST_SCALE && scale < 4 ? { scale, shift } : factors;
  }
}

/** Nearest integer, ties to even, of a float32 number below 2^22. */
function roundEven(value: number): number {
  return round(round(value + 12582912) - 12582912);
}

function clamp(value: number, lowest: number, highest: number): number {
  return Math.min(Math.max(value, lowest), highest);
}
