/** From the tree of a script to closures: names, arguments and `require` are checked here, before any message is seen. */
import { checkArguments } from './arguments.js';
import {
  type Action,
  type Arguments,
  type Command,
  type CommandDefinition,
  type CompileContext,
  type CompileOptions,
  type Position,
  SieveError,
  type Signature,
  type StringLiteral,
  type Test,
  type TestDefinition,
  type Text,
} from './contract.js';
import { always, type Branch, choice, counted, never, nothing, sequence } from './flow.js';
import type { Offered, Registry } from './registry.js';
import { compileText, type TextRules, variableNameOf } from './texts.js';

const ifSignature: Signature = { name: 'if', tests: 'one', hasBlock: true };
const elseSignature: Signature = { name: 'else', hasBlock: true };
const requireSignature: Signature = { name: 'require', positional: [{ name: 'extensions', type: 'strings' }] };

/** What a script does, and what it requires. @throws SieveError: the first thing that is wrong, from its start. */
export function compileCommands(
  commands: readonly Command[],
  registry: Registry,
  options: CompileOptions,
): { main: Action; required: readonly string[] } {
  const compiler = new Compiler(registry, options);
  return { main: compiler.script(commands), required: compiler.required };
}

class Compiler implements CompileContext, TextRules {
  readonly options: CompileOptions;
  readonly loops: (string | undefined)[] = [];
  readonly required: string[] = [];
  readonly #registry: Registry;
  readonly #enabled = new Set<string>();

  constructor(registry: Registry, options: CompileOptions) {
    this.#registry = registry;
    this.options = options;
  }

  // ---- what definitions ask ----

  hasRequired(extension: string): boolean {
    return this.#enabled.has(extension);
  }

  isAvailable(extension: string): boolean {
    return this.options.extensions.has(extension) && this.#registry.names.includes(extension);
  }

  enable(extension: string): void {
    this.#enabled.add(extension);
    for (const implied of this.#registry.implied.get(extension) ?? []) this.#enabled.add(implied);
  }

  variableName(text: Text): string {
    return variableNameOf(text, this);
  }

  fail(message: string, at: Position): never {
    throw new SieveError(message, at);
  }

  // ---- texts ----

  get decodesCharacters(): boolean {
    return this.#enabled.has('encoded-character');
  }

  get expandsVariables(): boolean {
    return this.#enabled.has('variables');
  }

  isNamespace(name: string): boolean {
    const extension = this.#registry.namespaces.get(name);
    return extension !== undefined && this.#enabled.has(extension);
  }

  compileText(literal: StringLiteral): Text {
    return compileText(literal, this);
  }

  // ---- commands ----

  /** RFC 5228 3.2: `require` stands before everything else. */
  script(commands: readonly Command[]): Action {
    let i = 0;
    for (; commands[i]?.name === 'require'; i++) this.#require(commands[i]!);
    return this.#block(commands.slice(i));
  }

  #require(command: Command): void {
    for (const text of this.#check(command, requireSignature).texts('extensions')!) {
      const name = text.constant ?? this.fail('the name of an extension must be a constant', text.at);
      if (!this.isAvailable(name)) this.fail(`there is no extension '${name.slice(0, 64)}' here`, text.at);
      if (!this.required.includes(name)) this.required.push(name);
      this.enable(name);
    }
  }

  #block(commands: readonly Command[]): Action {
    const actions: Action[] = [];
    const places: Position[] = [];
    for (let i = 0; i < commands.length; i++) {
      const command = commands[i]!;
      places.push(command.at);
      if (command.name !== 'if') {
        actions.push(this.#command(command));
        continue;
      }
      const chain = [command];
      while (isFurtherBranch(commands[i + 1])) {
        chain.push(commands[++i]!);
        if (commands[i]!.name === 'else') break;
      }
      actions.push(this.#choice(chain));
    }
    return sequence(actions, places);
  }

  /**
   * RFC 5463 4: what is behind a test that `ihave` has decided may use names that nobody knows here: such branches are left out unread. Scripts without
   * `ihave` are checked throughout.
   */
  #choice(chain: readonly Command[]): Action {
    const branches: Branch[] = [];
    const skips = () => this.#enabled.has('ihave');
    let isDecided = false;
    for (const command of chain) {
      this.#check(command, command.name === 'else' ? elseSignature : { ...ifSignature, name: command.name });
      if (isDecided && skips()) continue;
      const test = command.name === 'else' ? always : this.#test(command.tests[0]!);
      if (test === never && skips()) continue;
      branches.push({ test, block: this.#block(command.block!) });
      isDecided ||= test === always;
    }
    return choice(branches);
  }

  #command(command: Command): Action {
    this.#checkPlace(command);
    const definition: CommandDefinition = this.#definition(command, this.#registry.commands, 'command');
    const arguments_ = this.#check(command, definition);
    const tests = this.#tests(command);
    if (!definition.hasBlock) return definition.compile(arguments_, this, tests, nothing);
    if (definition.isLoop) this.loops.push(this.#loopName(arguments_));
    const block = this.#block(command.block!);
    if (definition.isLoop) this.loops.pop();
    return definition.compile(arguments_, this, tests, block);
  }

  #checkPlace({ name, at }: Command): void {
    if (name === 'require') this.fail("'require' must stand at the script's start, before all other commands", at);
    if (name === 'elsif' || name === 'else') this.fail(`'${name}' must stand behind the block of an 'if' or 'elsif'`, at);
  }

  #loopName(arguments_: Arguments): string | undefined {
    const name = arguments_.text('name');
    if (name && name.constant === undefined) this.fail('the name of a loop must be a constant', name.at);
    return name?.constant;
  }

  #test(command: Command): Test {
    const definition: TestDefinition = this.#definition(command, this.#registry.tests, 'test');
    const arguments_ = this.#check(command, definition);
    return counted(definition.compile(arguments_, this, this.#tests(command, definition.decidedBy)));
  }

  #tests(command: Command, decidedBy?: boolean): Test[] {
    const tests: Test[] = [];
    for (const inner of command.tests) {
      const test = this.#test(inner);
      tests.push(test);
      if (decidedBy !== undefined && test === (decidedBy ? always : never) && this.#enabled.has('ihave')) break;
    }
    return tests;
  }

  #definition<D>({ name, at }: Command, all: ReadonlyMap<string, readonly Offered<D>[]>, kind: 'command' | 'test'): D {
    const reason = this.options.withheld?.get(name);
    if (reason !== undefined) this.fail(`'${name}' can't be used here: ${reason}`, at);
    const offered = all.get(name);
    if (offered === undefined) {
      const other = kind === 'command' ? this.#registry.tests : this.#registry.commands;
      if (other.has(name) || (kind === 'test' && /^(if|elsif|else|require)$/.test(name))) {
        this.fail(`'${name}' is no ${kind}, it can't stand here`, at);
      }
      this.fail(`there is no ${kind} '${name}'`, at);
    }
    const usable = offered.find(({ requires }) => requires.length === 0 || requires.some((one) => this.#enabled.has(one)));
    if (usable !== undefined) return usable.definition;
    const wanted = offered.flatMap(({ requires }) => requires);
    const extension = wanted.find((one) => this.isAvailable(one));
    if (extension === undefined) this.fail(`'${name}' is of the extension '${wanted[0]}', which can't be used here`, at);
    this.fail(`'${name}' needs 'require "${extension}";' at the script's start`, at);
  }

  /** Arguments, number of tests, and whether there is a block. */
  #check(command: Command, signature: Signature): Arguments {
    const { name, at, tests } = command;
    const arguments_ = checkArguments(command, signature, this);
    if (signature.tests === undefined && tests.length > 0) this.fail(`'${name}' takes no test`, tests[0]!.at);
    if (signature.tests === 'one') {
      if (tests.length === 0) this.fail(`behind '${name}' a test is missing`, at);
      if (command.hasTestList) this.fail(`'${name}' takes one test, not a list in parentheses`, tests[0]!.at);
    }
    if (signature.tests === 'list' && !command.hasTestList) {
      this.fail(`behind '${name}' tests in parentheses are missing`, tests[0]?.at ?? at);
    }
    if (signature.hasBlock && command.block === undefined) this.fail(`behind '${name}' a block in braces is missing`, at);
    if (!signature.hasBlock && command.block !== undefined) this.fail(`'${name}' has no block, it ends with ';'`, at);
    return arguments_;
  }
}

function isFurtherBranch(command: Command | undefined): boolean {
  return command?.name === 'elsif' || command?.name === 'else';
}
