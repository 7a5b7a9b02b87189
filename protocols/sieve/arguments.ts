/** The arguments of a command or test, checked against its signature (RFC 5228 2.6). */
import {
  type Argument,
  type Arguments,
  type ArgumentType,
  type Command,
  type Position,
  type PositionalSpec,
  SieveError,
  type Signature,
  type StringLiteral,
  type Text,
} from './contract.js';

export interface ArgumentRules {
  hasRequired(extension: string): boolean;
  compileText(literal: StringLiteral): Text;
}

type Value = readonly Text[] | number;

/** @throws SieveError for what the signature does not allow. */
export function checkArguments(command: Command, signature: Signature, rules: ArgumentRules): Arguments {
  const checked = new CheckedArguments(command, rules);
  const rest = checked.takeTags(command.arguments, signature);
  checked.takePositional(rest, signature.positional ?? []);
  return checked;
}

class CheckedArguments implements Arguments {
  readonly at: Position;
  readonly #name: string;
  readonly #rules: ArgumentRules;
  readonly #tags = new Map<string, Position>();
  readonly #groups = new Map<string, string>();
  readonly #values = new Map<string, Value>();

  constructor(command: Command, rules: ArgumentRules) {
    this.at = command.at;
    this.#name = command.name;
    this.#rules = rules;
  }

  hasTag(tag: string): boolean {
    return this.#tags.has(tag);
  }

  tagOf(group: string): string | undefined {
    return this.#groups.get(group);
  }

  tagAt(tag: string): Position {
    return this.#tags.get(tag) ?? this.at;
  }

  text(name: string): Text | undefined {
    const value = this.#values.get(name);
    return typeof value === 'object' ? value[0] : undefined;
  }

  texts(name: string): readonly Text[] | undefined {
    const value = this.#values.get(name);
    return typeof value === 'object' ? value : undefined;
  }

  number(name: string): number | undefined {
    const value = this.#values.get(name);
    return typeof value === 'number' ? value : undefined;
  }

  /** Takes the tags with their values; what is left are the positional arguments. */
  takeTags(arguments_: readonly Argument[], signature: Signature): Argument[] {
    const rest: Argument[] = [];
    for (let i = 0; i < arguments_.length; i++) {
      const argument = arguments_[i]!;
      if (argument.kind !== 'tag') {
        rest.push(argument);
        continue;
      }
      // RFC 5228 2.6.2: tagged arguments stand before the positional ones.
      if (rest.length > 0) throw new SieveError(`':${argument.name}' must stand before the other arguments`, argument.at);
      const value = this.#takeTag(argument, signature);
      if (value !== undefined) {
        const next = arguments_[++i];
        if (next === undefined) throw new SieveError(`':${argument.name}' needs ${nameOfType(value)} behind it`, argument.at);
        this.#values.set(argument.name, this.#valueOf(next, value, `':${argument.name}'`));
      }
    }
    for (const [name, spec] of Object.entries(signature.tags ?? {})) {
      if (spec.isNeeded && !this.#tags.has(name)) throw new SieveError(`'${this.#name}' needs ':${name}'`, this.at);
    }
    return rest;
  }

  /** The type of what must follow it. */
  #takeTag({ name, at }: { name: string; at: Position }, signature: Signature): ArgumentType | undefined {
    const tags = signature.tags ?? {};
    const spec = Object.hasOwn(tags, name) ? tags[name] : undefined;
    if (spec === undefined) throw new SieveError(`'${this.#name}' has no argument ':${name}'`, at);
    if (spec.requires !== undefined && !this.#rules.hasRequired(spec.requires)) {
      throw new SieveError(`':${name}' needs 'require "${spec.requires}";' at the script's start`, at);
    }
    if (this.#tags.has(name)) throw new SieveError(`':${name}' stands here twice`, at);
    this.#tags.set(name, at);
    if (spec.group !== undefined) {
      const other = this.#groups.get(spec.group);
      if (other !== undefined) throw new SieveError(`':${other}' and ':${name}' exclude one another`, at);
      this.#groups.set(spec.group, name);
    }
    return spec.value;
  }

  takePositional(given: readonly Argument[], specs: readonly PositionalSpec[]): void {
    const needed = specs.filter((spec) => !spec.isOptional).length;
    if (given.length < needed) {
      const missing = specs.filter((spec) => !spec.isOptional)[given.length]!;
      throw new SieveError(`'${this.#name}' lacks an argument: ${missing.name} (${nameOfType(missing.type)})`, this.at);
    }
    if (given.length > specs.length) {
      throw new SieveError(`'${this.#name}' has too many arguments: at most ${specs.length}`, given[specs.length]!.at);
    }
    // Optional ones are filled from the left, as many as there are more than are needed.
    let spare = given.length - needed;
    let i = 0;
    for (const spec of specs) {
      if (spec.isOptional && spare-- <= 0) continue;
      this.#values.set(spec.name, this.#valueOf(given[i++]!, spec.type, `${spec.name} of '${this.#name}'`));
    }
  }

  #valueOf(argument: Argument, type: ArgumentType, what: string): Value {
    if (type === 'number' && argument.kind === 'number') return argument.value;
    if (type !== 'number' && argument.kind === 'string') return [this.#rules.compileText(argument.text)];
    if (type === 'strings' && argument.kind === 'strings') return argument.texts.map((text) => this.#rules.compileText(text));
    throw new SieveError(`${what} must be ${nameOfType(type)}`, argument.at);
  }
}

function nameOfType(type: ArgumentType): string {
  return { string: 'a text', strings: 'a text or a list of texts', number: 'a number' }[type];
}
