import type { Vocabulary } from './vocabulary.js';

/**
 * Spellings of tokens that end an answer, whatever the model's configuration says: chat models end a turn with one
 * token and the text with another, and converted files often name only one of them. The list is llama.cpp's.
 */
const endSpellings: readonly string[] = [
  '<|eot_id|>',
  '<|im_end|>',
  '<|end|>',
  '<|return|>',
  '<|call|>',
  '<|flush|>',
  '<|calls|>',
  '<end_of_turn>',
  '<|endoftext|>',
  '</s>',
  '<|eom_id|>',
  '<EOT>',
  '_<EOT>',
  '[EOT]',
  '[EOS]',
  '<|end_of_text|>',
  '<end_of_utterance>',
  '<eos>',
  '<turn|>',
  '<|tool_response>',
  '<\uff5cend\u2581of\u2581sentence\uff5c>',
  '[e~[',
  // Padding and separators of code completion: nothing that belongs to the answer follows them.
  '<|fim_pad|>',
  '<fim-pad>',
  '<fim_pad>',
  '<PAD>',
  '[PAD]',
  '<|fim_repo|>',
  '<|repo_name|>',
  '<fim-repo>',
  '<REPO>',
  '<reponame>',
  '<|file_sep|>',
];

/**
 * Ids of all the tokens that end generation, ascending.
 *
 * @param declared what the model's files name
 * @param isText   tokens that are ordinary text: "</s>" is also the end of a struck-out passage in HTML
 */
export function endTokenIds(
  vocabulary: Vocabulary,
  declared: readonly number[],
  isText: (id: number) => boolean,
): number[] {
  const ids = new Set(declared);
  for (const spelling of endSpellings) {
    const id = vocabulary.id(spelling);
    if (id !== null && !isText(id)) ids.add(id);
  }
  const has = (spelling: string) => ids.has(vocabulary.id(spelling) ?? -1);
  const drop = (spelling: string) => ids.delete(vocabulary.id(spelling) ?? -1);
  // In the harmony format <|end|> only ends a message of several, and gemma 4 has </s> as ordinary markup.
  if ((has('<|return|>') && has('<|call|>')) || ((has('<|call|>') || has('<|calls|>')) && has('<|flush|>')))
    drop('<|end|>');
  if (has('<|tool_response>')) drop('</s>');
  return [...ids].sort((a, b) => a - b);
}
