/** RFC 5703: `foreverypart`, `break`, `extracttext`. */
import { type Part, plainText } from '../../message/index.js';
import type { Action, CommandDefinition, Flow, MaybePromise, Run } from '../contract.js';
import { after, isPromise } from '../maybe.js';
import { modifierOf, modifierTags } from './modifiers.js';

/** RFC 5703 3: all parts, each before its children; a loop in a loop goes through the parts within the outer one's. */
export const foreverypart: CommandDefinition = {
  name: 'foreverypart',
  tags: { name: { value: 'string' } },
  hasBlock: true,
  isLoop: true,
  compile(arguments_, _context, _tests, block) {
    const name = arguments_.text('name')?.constant;
    return (run) =>
      after(run.structure(), (message) => {
        if (!message) return undefined;
        const outer = run.part;
        const parts: Part[] = [];
        if (outer) for (const child of childrenOf(outer)) collect(child, parts);
        else collect(message.root, parts);
        const leave = (flow: Flow) => {
          run.part = outer;
          const isOwn = typeof flow === 'object' && (flow.break === undefined || flow.break === name);
          return isOwn ? undefined : flow;
        };
        const flow = eachPart(run, parts, block);
        return isPromise(flow) ? flow.then(leave) : leave(flow);
      });
  },
};

function eachPart(run: Run, parts: readonly Part[], block: Action, start = 0): MaybePromise<Flow> {
  for (let i = start; i < parts.length; i++) {
    run.spend(1);
    run.part = parts[i];
    const flow = block(run);
    if (isPromise(flow)) return flow.then((value) => (value === undefined ? eachPart(run, parts, block, i + 1) : value));
    if (flow !== undefined) return flow;
  }
  return undefined;
}

/** The depth of a message is limited where it is parsed. */
function collect(part: Part, into: Part[]): void {
  into.push(part);
  for (const child of childrenOf(part)) collect(child, into);
}

function childrenOf(part: Part): readonly Part[] {
  if (part.opaque) return [];
  return part.message ? [part.message.structure] : (part.children ?? []);
}

export const breakCommand: CommandDefinition = {
  name: 'break',
  requires: ['foreverypart'],
  tags: { name: { value: 'string' } },
  compile(arguments_, context) {
    const { loops } = context;
    if (loops.length === 0) context.fail("'break' must stand in the block of a 'foreverypart'", arguments_.at);
    const name = arguments_.text('name');
    if (name && name.constant === undefined) context.fail('the name of a loop must be a constant', name.at);
    if (name && !loops.includes(name.constant)) {
      context.fail(`there is no loop '${name.constant!.slice(0, 64)}' around this`, name.at);
    }
    const flow: Flow = { break: name?.constant };
    return () => flow;
  },
};

/** RFC 5703 7: text parts decoded, others as an empty text. */
export const extracttext: CommandDefinition = {
  name: 'extracttext',
  tags: { ...modifierTags, first: { value: 'number' } },
  positional: [{ name: 'variable', type: 'string' }],
  compile(arguments_, context) {
    if (!context.hasRequired('variables')) {
      context.fail(`'extracttext' needs 'require "variables";' at the script's start`, arguments_.at);
    }
    if (context.loops.length === 0) {
      context.fail("'extracttext' must stand in the block of a 'foreverypart'", arguments_.at);
    }
    const variable = context.variableName(arguments_.text('variable')!);
    const modify = modifierOf(arguments_);
    const first = arguments_.number('first');
    return (run) =>
      after(run.structure(), (message): Flow => {
        // What is longer than any variable is cut before the modifiers see it; `:first` counts characters.
        let text = message && run.part ? textOf(message.bytes, run.part, run) : '';
        if (first !== undefined) text = [...text].slice(0, first).join('');
        run.setVariable(variable, modify ? modify(text) : text);
        return undefined;
      });
  },
};

function textOf(bytes: Buffer, part: Part, run: Run): string {
  if (part.type !== 'text') return '';
  const maxChars = run.limits.maxVariableBytes;
  run.spend(Math.ceil(Math.min(part.size, maxChars) / 100));
  return plainText(bytes, part, maxChars);
}
