import { bfloatToFloat } from './float16.js';
import type { IntegerBlock } from './integer-block.js';

/**
 * The engine's own storage types: panels of 16 rows, interleaved so that one 64-byte line holds four consecutive values
 * of k of each row (R16K4): one AVX-512 register, two AVX2 ones, four NEON ones. Files hold them as kernels read them.
 *
 * A panel is a line with d and m of its rows (bfloat16[16] each), then units: a line of factor codes, then the codes of
 * the unit's groups. The last unit of a panel may hold fewer groups; its line of factors is whole all the same.
 *
 *     factors  c u8[groups of a unit][16], then z u8[groups of a unit][16] where the type has mins
 *     8 bits   per 32 values of k: 8 lines; byte 4r + b of line j is the code of row r, value 4j + b
 *     4 bits   per 32 values of k: 4 lines; byte 4r + b of line j has the code of value 4j + b in its low nibble, that
 *              of value 16 + 4j + b in its high one
 *
 *     weight = d · c · (q − bias) − m · z
 *
 * d and m have 8 significant bits, c and z 8, codes at most 7: every product is exact in float32, so any order of
 * evaluation gives the same weight.
 */
export type PackedDType = 'int8' | 'int4' | 'int4_g64' | 'int4_g128' | 'int4_sym';

/** Rows of a panel. A matrix is padded to whole panels, and a part of one starts with a panel. */
export const PANEL_ROWS = 16;
/** Bytes of a line; panels start at a multiple of it, in files too. */
export const LINE = 64;
/** Values of k whose codes lie together; also those that share one scale of 8-bit activations. */
export const PACKED_BLOCK = 32;

export interface PackedLayout {
  /** Type id in GGUF files, outside of what ggml uses; also the id that crosses to native code. */
  readonly id: number;
  /** Values along a row that share a scale code (and a min code). */
  readonly groupSize: 32 | 64 | 128;
  readonly bits: 4 | 8;
  readonly groupsPerUnit: 2 | 4;
  /** Whether groups have a min code z, and rows an m. */
  readonly mins: boolean;
  /** Subtracted from a stored code. */
  readonly bias: number;
}

export const packedLayouts: Readonly<Record<PackedDType, PackedLayout>> = {
  int8: { id: 10008, groupSize: 32, bits: 8, groupsPerUnit: 4, mins: false, bias: 0 },
  int4: { id: 10004, groupSize: 32, bits: 4, groupsPerUnit: 2, mins: true, bias: 0 },
  int4_g64: { id: 10064, groupSize: 64, bits: 4, groupsPerUnit: 2, mins: true, bias: 0 },
  int4_g128: { id: 10128, groupSize: 128, bits: 4, groupsPerUnit: 2, mins: true, bias: 0 },
  int4_sym: { id: 10005, groupSize: 32, bits: 4, groupsPerUnit: 4, mins: false, bias: 8 },
};

/** What a panel says, as integers; d and m are bfloat16 numbers. */
export interface PanelIntegers {
  readonly codes: Int8Array; // [16, columns] as stored: q, −127 … 127 or 0 … 15
  readonly scales: Uint8Array; // [16, columns / groupSize] c
  readonly mins: Uint8Array; // [16, columns / groupSize] z; zeros where the type has none
  readonly d: Float32Array; // [16]
  readonly m: Float32Array; // [16]; zeros where the type has no mins
}

export function createPanelIntegers(dtype: PackedDType, columns: number): PanelIntegers {
  const groups = PANEL_ROWS * (columns / packedLayouts[dtype].groupSize);
  return {
    codes: new Int8Array(PANEL_ROWS * columns),
    scales: new Uint8Array(groups),
    mins: new Uint8Array(groups),
    d: new Float32Array(PANEL_ROWS),
    m: new Float32Array(PANEL_ROWS),
  };
}

/** Bytes of one panel, a multiple of a line; `columns` is a multiple of the group size. */
export function panelBytes(dtype: PackedDType, columns: number): number {
  const layout = packedLayouts[dtype];
  const groups = columns / layout.groupSize;
  return LINE + LINE * Math.ceil(groups / layout.groupsPerUnit) + groups * groupBytes(layout);
}

/** Codes of one group. */
function groupBytes({ groupSize, bits }: PackedLayout): number {
  return (PANEL_ROWS * groupSize * bits) / 8;
}

/** First byte of the unit of a group, which is its line of factors, from the start of the panel. */
function unitOffset(layout: PackedLayout, group: number): number {
  const unit = Math.floor(group / layout.groupsPerUnit);
  return LINE + unit * (LINE + layout.groupsPerUnit * groupBytes(layout));
}

/** Where the scale code of a row and group lies; its min code lies `groupsPerUnit` · 16 bytes on. */
function factorOffset(layout: PackedLayout, row: number, group: number): number {
  return unitOffset(layout, group) + PANEL_ROWS * (group % layout.groupsPerUnit) + row;
}

/** First line of the codes of block `index`, 32 values of k. */
function blockOffset(layout: PackedLayout, index: number): number {
  const blocksPerGroup = layout.groupSize / PACKED_BLOCK;
  const group = Math.floor(index / blocksPerGroup);
  const before = (group % layout.groupsPerUnit) * blocksPerGroup + (index % blocksPerGroup);
  return unitOffset(layout, group) + LINE + before * PANEL_ROWS * PACKED_BLOCK * (layout.bits / 8);
}

/** Writes the panel at `offset`, all of its bytes. */
export function packPanel(
  dtype: PackedDType,
  panel: PanelIntegers,
  columns: number,
  out: Uint8Array,
  offset: number,
): void {
  const layout = packedLayouts[dtype];
  const { bits, groupSize, groupsPerUnit } = layout;
  out.fill(0, offset, offset + panelBytes(dtype, columns));
  const numGroups = columns / groupSize;
  for (let row = 0; row < PANEL_ROWS; row++) {
    writeBfloat(out, offset + 2 * row, panel.d[row]!);
    if (layout.mins) writeBfloat(out, offset + 2 * (PANEL_ROWS + row), panel.m[row]!);
    for (let group = 0; group < numGroups; group++) {
      const at = offset + factorOffset(layout, row, group);
      out[at] = panel.scales[row * numGroups + group]!;
      if (layout.mins) out[at + groupsPerUnit * PANEL_ROWS] = panel.mins[row * numGroups + group]!;
    }
    for (let k = 0; k < columns; k++) {
      const code = panel.codes[row * columns + k]!;
      const at = offset + blockOffset(layout, Math.floor(k / PACKED_BLOCK)) + codeOffset(row, k % PACKED_BLOCK, bits);
      if (bits === 8) out[at] = code;
      else out[at]! |= (code & 15) << (k % PACKED_BLOCK < PACKED_BLOCK / 2 ? 0 : 4);
    }
  }
}

/** The byte with the code of value `k` of a block of 32, from the block's first line. */
function codeOffset(row: number, k: number, bits: 4 | 8): number {
  const position = bits === 8 ? k : k % (PACKED_BLOCK / 2);
  return LINE * (position >> 2) + 4 * row + (position & 3);
}

/** Reads the panel at `offset` back. */
export function unpackPanel(
  dtype: PackedDType,
  bytes: Uint8Array,
  offset: number,
  columns: number,
  panel: PanelIntegers,
): void {
  const layout = packedLayouts[dtype];
  const { bits, groupSize, groupsPerUnit } = layout;
  const numGroups = columns / groupSize;
  for (let row = 0; row < PANEL_ROWS; row++) {
    panel.d[row] = readBfloat(bytes, offset + 2 * row);
    panel.m[row] = layout.mins ? readBfloat(bytes, offset + 2 * (PANEL_ROWS + row)) : 0;
    for (let group = 0; group < numGroups; group++) {
      const at = offset + factorOffset(layout, row, group);
      panel.scales[row * numGroups + group] = bytes[at]!;
      panel.mins[row * numGroups + group] = layout.mins ? bytes[at + groupsPerUnit * PANEL_ROWS]! : 0;
    }
    for (let index = 0; index < columns / PACKED_BLOCK; index++) {
      const start = row * columns + index * PACKED_BLOCK;
      readCodes(bytes, offset + blockOffset(layout, index), row, bits, 0, panel.codes, start);
    }
  }
}

/** The integers of block `index` (32 values of k) of a row of the panel at `offset`. */
export function unpackPackedBlock(
  dtype: PackedDType,
  bytes: Uint8Array,
  offset: number,
  row: number,
  index: number,
  block: IntegerBlock,
): void {
  const layout = packedLayouts[dtype];
  const { bits, bias, groupsPerUnit } = layout;
  const at = offset + factorOffset(layout, row, Math.floor((index * PACKED_BLOCK) / layout.groupSize));
  block.d = readBfloat(bytes, offset + 2 * row);
  block.dmin = layout.mins ? readBfloat(bytes, offset + 2 * (PANEL_ROWS + row)) : 0;
  block.scales.fill(bytes[at]!);
  block.mins.fill(layout.mins ? bytes[at + groupsPerUnit * PANEL_ROWS]! : 0);
  readCodes(bytes, offset + blockOffset(layout, index), row, bits, bias, block.codes, 0);
}

/** The 32 codes of a row, less `bias`, from the lines at `offset`. */
function readCodes(
  bytes: Uint8Array,
  offset: number,
  row: number,
  bits: 4 | 8,
  bias: number,
  out: Int8Array,
  start: number,
): void {
  for (let k = 0; k < PACKED_BLOCK; k++) {
    const byte = bytes[offset + codeOffset(row, k, bits)]!;
    // Int8Array wraps 128 … 255.
    if (bits === 8) out[start + k] = byte;
    else out[start + k] = (k < PACKED_BLOCK / 2 ? byte & 15 : byte >> 4) - bias;
  }
}

function readBfloat(bytes: Uint8Array, offset: number): number {
  return bfloatToFloat(bytes[offset]! | (bytes[offset + 1]! << 8));
}

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/** The upper half of a float32, which is all of a bfloat16 number. */
function writeBfloat(out: Uint8Array, offset: number, value: number): void {
  float[0] = value;
  out[offset] = (word[0]! >> 16) & 0xff;
  out[offset + 1] = word[0]! >>> 24;
}
