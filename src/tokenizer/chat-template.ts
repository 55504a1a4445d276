import { EngineError } from '../base/errors.js';
import { type ChatPrompt, ContentMarks, textsIn } from './content-marks.js';
import { type Program, parseTemplate } from './jinja/program.js';
import { renderTemplate } from './jinja/render.js';
import { finish, type Work } from './work.js';

/** A turn of a conversation. Templates may read any other field: `name`, `tool_calls`, `reasoning_content`. */
export interface ChatMessage {
  /** "system", "user", "assistant", "tool", or whatever else the template knows. */
  readonly role: string;
  /** Text; for templates that take them, a list of parts. */
  readonly content?: unknown;
  readonly [field: string]: unknown;
}

/** Special tokens as they are spelled, for templates that write them. */
export interface TemplateTokens {
  readonly bosToken?: string | null;
  readonly eosToken?: string | null;
}

export interface RenderOptions {
  /** End with what begins the assistant's turn. Default true. */
  readonly addGenerationPrompt?: boolean | undefined;
  /** JSON schemas of functions that the model may call. */
  readonly tools?: readonly unknown[] | undefined;
  /** Which of several templates. Default: "tool_use" if there are tools and such a template, else "default". */
  readonly template?: string | undefined;
  /** More variables of the template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined;
  /** The time that a template may write. Default: now. */
  readonly now?: Date | undefined;
}

/**
 * How a model wants a conversation to be written: a Jinja template, or several with names. What transformers renders is
 * the measure (apply_chat_template; its sandboxed environment with trim_blocks and lstrip_blocks).
 *
 * A template comes with a model and may be hostile: parsing and rendering are bounded (jinja/budget.ts).
 */
export class ChatTemplate {
  readonly #sources: ReadonlyMap<string, string>;
  readonly #programs = new Map<string, Program>();
  readonly #tokens: TemplateTokens;

  /**
   * Templates are parsed when they are first used.
   *
   * @param sources name to text; a template without a name is "default"
   * @param path    of the file they come from, for messages
   */
  constructor(
    sources: ReadonlyMap<string, string>,
    tokens: TemplateTokens,
    readonly path: string,
  ) {
    this.#sources = sources;
    this.#tokens = tokens;
  }

  /** A template that is parsed at once. Throws CHAT_TEMPLATE_INVALID and CHAT_TEMPLATE_LIMIT. */
  static parse(source: string, tokens: TemplateTokens, path: string): ChatTemplate {
    const template = new ChatTemplate(new Map([['default', source]]), tokens, path);
    template.#program({});
    return template;
  }

  /** Names of the templates. */
  get names(): readonly string[] {
    return [...this.#sources.keys()];
  }

  /**
   * The conversation as text.
   *
   * Throws CHAT_TEMPLATE_REFUSED where the template does not take these messages, CHAT_TEMPLATE_INVALID,
   * CHAT_TEMPLATE_LIMIT, and OPTION_INVALID for messages that are none.
   */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    const program = this.#program(options);
    return this.#render(program, contentOf(checked(messages), options), options);
  }

  /**
   * The conversation as text, with the places where content looks like a special token and is none. The content is
   * marked (ContentMarks) and rendered once more; the result is the same text, unless the template looks into the
   * content for brackets. Then those it looks for are left alone, which suffices for all that is known.
   *
   * @param specialTexts special tokens of the tokenizer, as they are spelled
   */
  prompt(messages: readonly ChatMessage[], options: RenderOptions, specialTexts: readonly string[]): ChatPrompt {
    return finish(this.promptWork(messages, options, specialTexts));
  }

  /** The same, as work in pieces; a rendering is one. */
  *promptWork(
    messages: readonly ChatMessage[],
    options: RenderOptions,
    specialTexts: readonly string[],
  ): Work<ChatPrompt> {
    const program = this.#program(options);
    const content = contentOf(checked(messages), options);
    const text = this.#render(program, content, options);
    yield;
    const texts = textsIn(content);
    const marks = new ContentMarks(specialTexts, [text, ...texts, ...program.literals]);
    if (!texts.some((part) => marks.occurIn(part))) return { text, content: null };
    yield;
    try {
      const marked = this.#render(program, marks.mark(content, []), options);
      yield;
      const prompt = marks.read(marked);
      if (prompt.text === text) return prompt;
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
    }
    yield;
    return marks.read(this.#render(program, marks.mark(content, program.literals), options));
  }

  #render(program: Program, content: Readonly<Record<string, unknown>>, options: RenderOptions): string {
    const variables = {
      ...content,
      add_generation_prompt: options.addGenerationPrompt ?? true,
      bos_token: this.#tokens.bosToken ?? '',
      eos_token: this.#tokens.eosToken ?? '',
    };
    return renderTemplate(program, variables, this.path, options.now);
  }

  #program({ template, tools }: RenderOptions): Program {
    const preferred = tools !== undefined && this.#sources.has('tool_use') ? 'tool_use' : 'default';
    const name = template ?? (this.#sources.size === 1 ? this.names[0]! : preferred);
    const source = this.#sources.get(name);
    if (source === undefined) {
      const expected = `one of ${this.names.join(', ')}`;
      throw new EngineError('OPTION_INVALID', { option: 'template', value: template, expected });
    }
    let program = this.#programs.get(name);
    if (program === undefined) {
      program = parseTemplate(source, this.path);
      this.#programs.set(name, program);
    }
    return program;
  }
}

/** The variables that come from a request. */
function contentOf(messages: readonly ChatMessage[], options: RenderOptions): Readonly<Record<string, unknown>> {
  return { documents: null, ...options.variables, messages, tools: options.tools ?? null };
}

function checked(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  const invalid = (value: unknown, expected: string) =>
    new EngineError('OPTION_INVALID', { option: 'messages', value, expected });
  if (!Array.isArray(messages) || messages.length === 0) throw invalid(messages, 'a list of at least one message');
  const wrong = messages.find((message) => typeof message?.role !== 'string');
  if (wrong !== undefined) throw invalid(wrong, 'messages that are objects with a role');
  return messages;
}
