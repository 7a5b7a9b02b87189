/** RFC 5232 4: `hasflag`. */
import type { Arguments, TestDefinition, Text } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';
import { constantText } from '../texts.js';
import { flagsIn } from './flags.js';

export const hasflag: TestDefinition = {
  name: 'hasflag',
  tags: comparisonTags,
  positional: [
    { name: 'variables', type: 'strings', isOptional: true },
    { name: 'flags', type: 'strings' },
  ],
  compile(arguments_, context) {
    const comparison = comparisonOf(withSeparateFlags(arguments_), context, { keys: 'flags' });
    const texts = arguments_.texts('variables');
    if (!texts) return (run) => comparison.holds(run, run.flags);
    if (!context.hasRequired('variables')) {
      context.fail(`'hasflag' with names of variables needs 'require "variables";' at the script's start`, texts[0]!.at);
    }
    const variables = texts.map((text) => context.variableName(text));
    return (run) => comparison.holds(run, flagsIn(variables.map((variable) => run.variable(variable) ?? '')));
  },
};

/** RFC 5232 2: one text may hold several flags with blanks between them. */
function withSeparateFlags(arguments_: Arguments): Arguments {
  const flags = arguments_.texts('flags')!.flatMap(separate);
  return {
    at: arguments_.at,
    hasTag: (tag) => arguments_.hasTag(tag),
    tagOf: (group) => arguments_.tagOf(group),
    tagAt: (tag) => arguments_.tagAt(tag),
    text: (name) => arguments_.text(name),
    texts: (name) => (name === 'flags' ? flags : arguments_.texts(name)),
    number: (name) => arguments_.number(name),
  };
}

function separate(text: Text): readonly Text[] {
  const words = text.constant?.split(/[ \t\r\n]+/).filter((word) => word !== '');
  return words && words.length > 1 ? words.map((word) => constantText(word, text.at)) : [text];
}
