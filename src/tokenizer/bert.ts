import { anywhere, beforeStarters, inSequence, partwise, type SlowChange } from './partwise.js';
import { whiteSpace } from './pattern.js';

export interface BertNormalizerOptions {
  /** Drop control characters, make all white space plain spaces. */
  readonly cleanText: boolean;
  /** Make every Chinese character a word. */
  readonly separateHan: boolean;
  readonly stripAccents: boolean;
  readonly lowercase: boolean;
}

/** Code points that BERT's tokenizer takes for Chinese; the fifth range starts late there too (0x2B920 for 0x2B820). */
const han =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

/** The text cleaning of BERT (google-research/bert, tokenization.py, as the tokenizers library has it). */
export function bertNormalizer(options: BertNormalizerOptions): SlowChange {
  const control = /[^\P{C}\t\n\r\p{Cn}]|[\0\ufffd]/gu;
  const space = new RegExp(whiteSpace, 'gu');
  const steps: SlowChange[] = [];
  if (options.cleanText) steps.push(partwise((text) => text.replace(control, '').replace(space, ' '), anywhere));
  if (options.separateHan) steps.push(partwise((text) => text.replace(han, ' $& '), anywhere));
  if (options.stripAccents) {
    steps.push(partwise((text) => text.normalize('NFD').replace(/\p{Mn}/gu, ''), beforeStarters));
  }
  if (options.lowercase) steps.push(partwise(lowercase, anywhere));
  return inSequence(steps);
}

/** Character by character, so without the final sigma rule of JavaScript. */
export function lowercase(text: string): string {
  return text.replaceAll('Σ', 'σ').toLowerCase();
}
