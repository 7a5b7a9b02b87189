/** The settings described for help and for tools: JSON Schema per section, and what a path leads to. No store needed. */
import type { Sections } from './contract.js';
import { isTree, parsePath } from './paths.js';
import { Section } from './section.js';

/** A JSON Schema (draft 2020-12). */
export type SchemaTree = Record<string, unknown>;

/** What is described: a registry. */
type Described = { sections: Sections };

/** One schema with a property for each section. */
export function sectionSchemas(registry: Described): SchemaTree {
  const entries = Object.entries(registry.sections);
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    properties: Object.fromEntries(entries.map(([name, definition]) => [name, new Section(name, definition).jsonSchema()])),
    additionalProperties: false,
  };
}

function sectionAt(registry: Described, text: string): { section?: Section; path: string[] } {
  const [name, ...path] = parsePath(text);
  const definition = Object.hasOwn(registry.sections, name!) ? registry.sections[name!] : undefined;
  return definition ? { section: new Section(name!, definition), path } : { path };
}

/** Whether a path names a secret. Throws `SettingsError` for what is no path. */
export function isSecretPath(registry: Described, text: string): boolean {
  const { section, path } = sectionAt(registry, text);
  return section?.isSecret(path) ?? false;
}

/** Whether there can be a setting at this path. Throws `SettingsError` for what is no path. */
export function isKnownPath(registry: Described, text: string): boolean {
  const { section, path } = sectionAt(registry, text);
  return section !== undefined && leadsSomewhere(section.jsonSchema(), path);
}

function leadsSomewhere(schema: unknown, [element, ...rest]: readonly string[]): boolean {
  if (element === undefined) return true;
  if (!isTree(schema)) return schema === true;
  for (const several of ['anyOf', 'oneOf', 'allOf']) {
    const options = schema[several];
    if (Array.isArray(options) && options.some((option) => leadsSomewhere(option, [element, ...rest]))) return true;
  }
  const { properties, additionalProperties, items } = schema;
  if (isTree(properties) && Object.hasOwn(properties, element)) return leadsSomewhere(properties[element], rest);
  if (isTree(additionalProperties)) return leadsSomewhere(additionalProperties, rest);
  return isTree(items) && /^\d+$/.test(element) && leadsSomewhere(items, rest);
}
