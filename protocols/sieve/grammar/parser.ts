/** Tree of a script (RFC 5228 8.2): names, arguments, tests and blocks, not yet what they mean. */
import { type Argument, type Command, SieveError, type SieveLimits, type StringLiteral } from '../contract.js';
import { defaultSieveLimits, nestingCeiling } from '../limits.js';
import { Lexer, type Token } from './lexer.js';
import { decodeScript } from './source.js';

export type GrammarLimits = Pick<SieveLimits, 'maxScriptBytes' | 'maxNesting' | 'maxCommands' | 'maxTextBytes' | 'maxListItems'>;

/**
 * The commands of a script. Takes time linear in its size.
 * @param script UTF-8; ends of lines are CRLF or LF.
 * @throws SieveError and nothing else.
 */
export function parseSieve(script: Buffer | string, limits: GrammarLimits = defaultSieveLimits): Command[] {
  return new Parser(decodeScript(script, limits), limits).script();
}

class Parser {
  readonly #lexer: Lexer;
  readonly #limits: GrammarLimits;
  readonly #maxNesting: number;
  #token: Token;
  #commands = 0;

  constructor(text: string, limits: GrammarLimits) {
    this.#limits = limits;
    this.#maxNesting = Math.min(limits.maxNesting, nestingCeiling);
    this.#lexer = new Lexer(text, limits);
    this.#token = this.#lexer.next();
  }

  script(): Command[] {
    const commands: Command[] = [];
    while (this.#token.kind !== 'end') commands.push(this.#command(0));
    return commands;
  }

  #take(): Token {
    const token = this.#token;
    this.#token = this.#lexer.next();
    return token;
  }

  #isAt(punctuation: string): boolean {
    return this.#token.kind === 'punctuation' && this.#token.text === punctuation;
  }

  #fails(expected: string): never {
    throw new SieveError(`expected ${expected}, found ${describeToken(this.#token)}`, this.#token.at);
  }

  /** The identifier, arguments and tests that commands and tests have in common. */
  #head(nesting: number, expected: string): Command {
    if (this.#token.kind !== 'identifier') this.#fails(expected);
    const { text, at } = this.#take();
    if (++this.#commands > this.#limits.maxCommands) {
      throw new SieveError(`the script is too long: at most ${this.#limits.maxCommands} commands and tests`, at);
    }
    if (nesting > this.#maxNesting) {
      throw new SieveError(`blocks and tests stand in each other too deeply: at most ${this.#maxNesting} levels`, at);
    }
    const command: Command = { name: text, arguments: this.#arguments(), tests: [], hasTestList: false, at };
    if (this.#token.kind === 'identifier') command.tests.push(this.#test(nesting + 1));
    else if (this.#isAt('(')) {
      command.hasTestList = true;
      do {
        this.#take();
        command.tests.push(this.#test(nesting + 1));
      } while (this.#isAt(','));
      if (!this.#isAt(')')) this.#fails("',' or ')'");
      this.#take();
    }
    return command;
  }

  #test(nesting: number): Command {
    return this.#head(nesting, 'a test');
  }

  #command(nesting: number): Command {
    const command = this.#head(nesting, 'a command');
    if (this.#isAt('{')) {
      const open = this.#take();
      command.block = [];
      while (!this.#isAt('}')) {
        if (this.#token.kind === 'end') throw new SieveError("this block has no end: '}' is missing", open.at);
        command.block.push(this.#command(nesting + 1));
      }
      this.#take();
    } else if (this.#isAt(';')) this.#take();
    else this.#fails(`';' or a block behind '${command.name}'`);
    return command;
  }

  #arguments(): Argument[] {
    const found: Argument[] = [];
    for (;;) {
      const { kind, text, value, at } = this.#token;
      if (kind === 'string') found.push({ kind, text: { value: text, at }, at });
      else if (kind === 'number') found.push({ kind, value, at });
      else if (kind === 'tag') found.push({ kind, name: text, at });
      else if (this.#isAt('[')) {
        found.push({ kind: 'strings', texts: this.#list(), at });
        continue;
      } else return found;
      this.#take();
    }
  }

  #list(): StringLiteral[] {
    const { at } = this.#token;
    const texts: StringLiteral[] = [];
    do {
      this.#take();
      if (this.#token.kind !== 'string') this.#fails('a text');
      if (texts.length >= this.#limits.maxListItems) {
        throw new SieveError(`this list is too long: at most ${this.#limits.maxListItems} texts`, at);
      }
      const token = this.#take();
      texts.push({ value: token.text, at: token.at });
    } while (this.#isAt(','));
    if (!this.#isAt(']')) this.#fails("',' or ']'");
    this.#take();
    return texts;
  }
}

function describeToken(token: Token): string {
  switch (token.kind) {
    case 'end':
      return "the script's end";
    case 'string':
      return 'a text';
    case 'number':
      return 'a number';
    case 'tag':
      return `':${token.text}'`;
    default:
      return `'${token.text}'`;
  }
}
