/** RFC 5228 4.2 `redirect`, with `:copy` (RFC 3894), `:list` (6134), and what it asks of SMTP: `:notify`, `:ret`, `:by…` (6009). */
import {
  type Arguments,
  type CommandDefinition,
  type CompileContext,
  type Run,
  type SieveAction,
  SieveRunError,
} from '../contract.js';
import { addressOf } from './addresses.js';

type Redirect = Extract<SieveAction, { kind: 'redirect' }>;

/** RFC 2852 4: nine digits. */
const maxBySeconds = 999_999_999;

export const redirect: CommandDefinition = {
  name: 'redirect',
  tags: {
    copy: { requires: 'copy' },
    list: { requires: 'extlists' },
    notify: { requires: 'redirect-dsn', value: 'string' },
    ret: { requires: 'redirect-dsn', value: 'string' },
    bytimerelative: { requires: 'redirect-deliverby', value: 'number', group: 'bytime' },
    bytimeabsolute: { requires: 'redirect-deliverby', value: 'string', group: 'bytime' },
    bymode: { requires: 'redirect-deliverby', value: 'string' },
    bytrace: { requires: 'redirect-deliverby' },
  },
  positional: [{ name: 'address', type: 'string' }],
  compile(arguments_, context) {
    const isCopy = arguments_.hasTag('copy');
    const where = destination(arguments_, context);
    const notify = oneOf(arguments_, context, 'notify', notifyValue);
    const ret = oneOf(arguments_, context, 'ret', (text) => (/^(full|hdrs)$/i.test(text) ? text.toUpperCase() : undefined));
    const deliverBy = deliverByOf(arguments_, context);
    return (run) => {
      const action: Redirect = { kind: 'redirect', ...where(run), isCopy };
      const [notifyText, retText, by] = [notify?.(run), ret?.(run), deliverBy?.(run)];
      if (notifyText !== undefined) action.notify = notifyText;
      if (retText !== undefined) action.ret = retText as 'FULL' | 'HDRS';
      if (by) action.deliverBy = by;
      run.act(action);
      if (!isCopy) run.isImplicitKeepCancelled = true;
    };
  },
};

function destination(arguments_: Arguments, context: CompileContext): (run: Run) => { address: string; list?: string } {
  const text = arguments_.text('address')!;
  if (arguments_.hasTag('list')) return (run) => ({ address: '', list: text.of(run) });
  const address = addressOf(text, context);
  return (run) => ({ address: address(run) });
}

/** RFC 3461 4.1. */
function notifyValue(text: string): string | undefined {
  const values = text.toUpperCase().split(',');
  if (values.length === 1 && values[0] === 'NEVER') return 'NEVER';
  const isList = values.every((value) => /^(SUCCESS|FAILURE|DELAY)$/.test(value)) && new Set(values).size === values.length;
  return isList ? values.join(',') : undefined;
}

/** A tag whose value is one of a few; constants are checked at once. */
function oneOf(
  arguments_: Arguments,
  context: CompileContext,
  tag: string,
  read: (text: string) => string | undefined,
): ((run: Run) => string) | undefined {
  const text = arguments_.text(tag);
  if (!text) return undefined;
  if (text.constant !== undefined && read(text.constant) === undefined) {
    context.fail(`'${text.constant.slice(0, 64)}' is no value of ':${tag}'`, text.at);
  }
  return (run) => {
    const value = read(text.of(run));
    if (value === undefined) throw new SieveRunError(`this is no value of ':${tag}'`, text.at);
    return value;
  };
}

/** RFC 6009 4: the time is relative to the run, or absolute as RFC 3339 has it. */
function deliverByOf(arguments_: Arguments, context: CompileContext): ((run: Run) => Redirect['deliverBy']) | undefined {
  const isTraced = arguments_.hasTag('bytrace');
  const mode = oneOf(arguments_, context, 'bymode', (text) => (/^(notify|return)$/i.test(text) ? text.toLowerCase() : undefined));
  if (arguments_.tagOf('bytime') === undefined) {
    if (mode || isTraced) {
      context.fail(
        "':bymode' and ':bytrace' need ':bytimerelative' or ':bytimeabsolute'",
        arguments_.tagAt(mode ? 'bymode' : 'bytrace'),
      );
    }
    return undefined;
  }
  const seconds = arguments_.number('bytimerelative');
  const absolute = oneOf(arguments_, context, 'bytimeabsolute', (text) => (timeIn(text) === undefined ? undefined : text));
  return (run) => ({
    seconds: Math.min(seconds ?? Math.round((timeIn(absolute!(run))! - run.input.nowMs) / 1000), maxBySeconds),
    mode: (mode?.(run) ?? 'return') as 'notify' | 'return',
    isTraced,
  });
}

/** RFC 3339, in milliseconds. */
function timeIn(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i.test(text)) return undefined;
  const time = Date.parse(text.toUpperCase());
  return Number.isNaN(time) ? undefined : time;
}
