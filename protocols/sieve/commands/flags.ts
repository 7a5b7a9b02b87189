/** RFC 5232: IMAP flags as scripts write them, `setflag`, `addflag`, `removeflag`, and the tag `:flags` of what stores a message. */
import type { Arguments, CommandDefinition, CompileContext, Run, TagSpec, Text } from '../contract.js';

export const flagsTag: TagSpec = { value: 'strings', requires: 'imap4flags' };

/** `\Recent` and flags unknown to IMAP can't be set; keywords are atoms (RFC 9051 9). */
const flagPattern = /^(?:\\(?:answered|flagged|deleted|seen|draft)|[^\x00-\x20\x7f-\uffff(){%*"\\\]]{1,255})$/i;
const maxFlags = 128;

/**
 * The flags in some texts, several in one text with blanks between them: each once, whatever its case, those that can't be set left out (RFC 5232 2).
 * @returns in the order of their first appearance
 */
export function flagsIn(texts: Iterable<string>): string[] {
  const found = new Map<string, string>();
  for (const text of texts) {
    for (const flag of text.split(/[ \t\r\n]+/)) {
      const key = flag.toLowerCase();
      if (found.size < maxFlags && flagPattern.test(flag) && !found.has(key)) found.set(key, flag);
    }
  }
  return [...found.values()];
}

/** Flags that a message is stored with here: those of `:flags`, else the run's own. Undefined in scripts without the extension. */
export function storedFlags(arguments_: Arguments, context: CompileContext): ((run: Run) => string[]) | undefined {
  const given = arguments_.texts('flags');
  if (given) return constantFlags(given) ?? ((run) => flagsIn(given.map((text) => text.of(run))));
  return context.hasRequired('imap4flags') ? (run) => [...run.flags] : undefined;
}

function constantFlags(texts: readonly Text[]): (() => string[]) | undefined {
  if (texts.some(({ constant }) => constant === undefined)) return undefined;
  const flags = flagsIn(texts.map(({ constant }) => constant!));
  return () => [...flags];
}

type Edit = (present: readonly string[], given: readonly string[]) => string[];

const edits: Readonly<Record<string, Edit>> = {
  setflag: (_present, given) => [...given],
  addflag: (present, given) => flagsIn([...present, ...given]),
  removeflag: (present, given) => {
    const gone = new Set(given.map((flag) => flag.toLowerCase()));
    return present.filter((flag) => !gone.has(flag.toLowerCase()));
  },
};

function flagCommand(name: string, edit: Edit): CommandDefinition {
  return {
    name,
    positional: [
      { name: 'variable', type: 'string', isOptional: true },
      { name: 'flags', type: 'strings' },
    ],
    compile(arguments_, context) {
      const given = arguments_.texts('flags')!;
      const flags = constantFlags(given) ?? ((run: Run) => flagsIn(given.map((text) => text.of(run))));
      const text = arguments_.text('variable');
      if (!text) {
        return (run) => {
          run.flags = edit(run.flags, flags(run));
        };
      }
      // RFC 5232 2: named variables are those of the extension `variables`.
      if (!context.hasRequired('variables')) {
        context.fail(`'${name}' with the name of a variable needs 'require "variables";' at the script's start`, text.at);
      }
      const variable = context.variableName(text);
      return (run) => {
        run.setVariable(variable, edit(flagsIn([run.variable(variable) ?? '']), flags(run)).join(' '));
      };
    },
  };
}

export const flagCommands: readonly CommandDefinition[] = Object.entries(edits).map(([name, edit]) => flagCommand(name, edit));
