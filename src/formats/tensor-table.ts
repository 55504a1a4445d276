import { EngineError } from '../base/errors.js';
import type { TensorInfo } from './model-file.js';

/** Control, format, private and unassigned characters, lone surrogates, line separators, and bytes that were not UTF-8. */
const notPlain = /[\p{C}\p{Zl}\p{Zp}\ufffd]/u;

/** Whether text is fit to be a tensor name, a metadata key or a file name: not empty, and printable. */
export function isPlainName(text: string): boolean {
  return text !== '' && !notPlain.test(text);
}

/** Throws FORMAT_INVALID if two tensors of one file share bytes. */
export function refuseOverlaps(path: string, tensors: readonly TensorInfo[]): void {
  const sorted = tensors.toSorted((a, b) => a.offset - b.offset);
  for (let i = 1; i < sorted.length; i++) {
    const before = sorted[i - 1] as TensorInfo;
    const { name, offset } = sorted[i] as TensorInfo;
    if (before.offset + before.byteLength <= offset) continue;
    throw new EngineError('FORMAT_INVALID', {
      path,
      field: `tensor ${name} offset`,
      value: offset,
      problem: `which lies within tensor ${before.name}`,
    });
  }
}
