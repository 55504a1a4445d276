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
export function bertNormalizer(options: BertNormalizerOptions): (text: string) => string {
  const control = /[^\P{C}\t\n\r\p{Cn}]|[\0\ufffd]/gu;
  const space = new RegExp(whiteSpace, 'gu');
  return (text) => {
    let normalized = text;
    if (options.cleanText) normalized = normalized.replace(control, '').replace(space, ' ');
    if (options.separateHan) normalized = normalized.replace(han, ' $& ');
    if (options.stripAccents) normalized = normalized.normalize('NFD').replace(/\p{Mn}/gu, '');
    return options.lowercase ? lowercase(normalized) : normalized;
  };
}

/** Character by character, so without the final sigma rule of JavaScript. */
export function lowercase(text: string): string {
  return text.replaceAll('Σ', 'σ').toLowerCase();
}
