/** What names mean: the commands and tests of a list of extensions, by name. */
import type { CommandDefinition, Extension, TestDefinition } from './contract.js';

export interface Offered<D> {
  definition: D;
  /** Extensions of which one must have been required; empty for none. */
  requires: readonly string[];
}

export interface Registry {
  /** Of all extensions that can be required, in alphabetical order. */
  readonly names: readonly string[];
  readonly implied: ReadonlyMap<string, readonly string[]>;
  /** Namespace of variables → extension. */
  readonly namespaces: ReadonlyMap<string, string>;
  readonly commands: ReadonlyMap<string, readonly Offered<CommandDefinition>[]>;
  readonly tests: ReadonlyMap<string, readonly Offered<TestDefinition>[]>;
}

/** Extensions of one name are one: its parts may be listed apart. */
export function makeRegistry(extensions: readonly Extension[]): Registry {
  const implied = new Map<string, readonly string[]>();
  const namespaces = new Map<string, string>();
  const commands = new Map<string, Offered<CommandDefinition>[]>();
  const tests = new Map<string, Offered<TestDefinition>[]>();
  for (const extension of extensions) {
    if (extension.implies) implied.set(extension.name, [...(implied.get(extension.name) ?? []), ...extension.implies]);
    if (extension.namespace !== undefined) namespaces.set(extension.namespace, extension.name);
    for (const definition of extension.commands ?? []) offer(commands, extension, definition);
    for (const definition of extension.tests ?? []) offer(tests, extension, definition);
  }
  const names = [...new Set(extensions.map(({ name }) => name))].filter((name) => name !== '').sort();
  return { names, implied, namespaces, commands, tests };
}

function offer<D extends TestDefinition | CommandDefinition>(
  all: Map<string, Offered<D>[]>,
  extension: Extension,
  definition: D,
): void {
  const requires = definition.requires ?? (extension.name === '' ? [] : [extension.name]);
  const offered = all.get(definition.name);
  if (offered) offered.push({ definition, requires });
  else all.set(definition.name, [{ definition, requires }]);
}
