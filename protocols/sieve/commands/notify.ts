/** RFC 5435 `notify`, `valid_notify_method`, `notify_method_capability`; the method is `mailto` (RFC 5436). */
import { type CommandDefinition, SieveRunError, type TestDefinition, type Text } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';
import { addressIn } from './addresses.js';
import { fccOf, fccTags } from './fcc.js';

/** Whether a notification can be sent to this URI: a `mailto` (RFC 6068) with at least one address. */
export function isNotifyMethod(uri: string): boolean {
  const match = /^mailto:([^?#]*)(?:\?([^#]*))?$/i.exec(uri);
  if (!match || /[\x00-\x20\x7f"<>\\^`{|}]/.test(uri)) return false;
  const lists = [match[1]!];
  for (const field of match[2]?.split('&') ?? []) {
    const [name, value, ...more] = field.split('=');
    if (value === undefined || more.length > 0 || !decoded(name!) || decoded(value) === undefined) return false;
    if (/^(to|cc|bcc)$/i.test(name!)) lists.push(value);
  }
  const addresses = lists.filter((list) => list !== '').flatMap((list) => (decoded(list) ?? '').split(','));
  return addresses.length > 0 && addresses.every((address) => addressIn(address) !== undefined);
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

export const notify: CommandDefinition = {
  name: 'notify',
  tags: {
    from: { value: 'string' },
    importance: { value: 'string' },
    options: { value: 'strings' },
    message: { value: 'string' },
    ...fccTags,
  },
  positional: [{ name: 'method', type: 'string' }],
  compile(arguments_, context) {
    const [method, from, importance, message] = ['method', 'from', 'importance', 'message'].map((name) => arguments_.text(name));
    const options = arguments_.texts('options') ?? [];
    const refuseConstant = (text: Text | undefined, isRight: (text: string) => boolean, what: string) => {
      if (text?.constant !== undefined && !isRight(text.constant)) context.fail(what, text.at);
    };
    refuseConstant(
      method,
      isNotifyMethod,
      "this is no method of notification that is known here; 'mailto:' with an address is one",
    );
    refuseConstant(from, (text) => addressIn(text) !== undefined, "':from' must be an address of a mailbox");
    refuseConstant(importance, isImportance, `':importance' must be "1", "2" or "3"`);
    const fcc = fccOf(arguments_, context);
    return (run) => {
      const uri = method!.of(run);
      if (!isNotifyMethod(uri)) throw new SieveRunError('this is no method of notification that is known here', method!.at);
      const urgency = importance?.of(run);
      if (urgency !== undefined && !isImportance(urgency))
        throw new SieveRunError(`':importance' must be "1", "2" or "3"`, importance!.at);
      // RFC 5435 3.3: a sender that can't be used is as good as none.
      const sender = from?.of(run);
      run.act({
        kind: 'notify',
        method: uri,
        ...(sender !== undefined && addressIn(sender) !== undefined && { from: sender }),
        ...(urgency !== undefined && { importance: urgency }),
        options: options.map((text) => text.of(run)),
        ...(message && { message: message.of(run) }),
        ...fcc(run),
      });
    };
  },
};

function isImportance(text: string): text is '1' | '2' | '3' {
  return /^[123]$/.test(text);
}

export const validNotifyMethod: TestDefinition = {
  name: 'valid_notify_method',
  positional: [{ name: 'uris', type: 'strings' }],
  compile(arguments_) {
    const uris = arguments_.texts('uris')!;
    return (run) => uris.every((uri) => isNotifyMethod(uri.of(run)));
  },
};

/** RFC 5435 5, RFC 5436 2.2: nobody can tell whether a reader of mail is there. */
export const notifyMethodCapability: TestDefinition = {
  name: 'notify_method_capability',
  tags: comparisonTags,
  positional: [
    { name: 'uri', type: 'string' },
    { name: 'capability', type: 'string' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    const uri = arguments_.text('uri')!;
    const capability = arguments_.text('capability')!;
    return (run) => {
      const isKnown = isNotifyMethod(uri.of(run)) && capability.of(run).toLowerCase() === 'online';
      return isKnown && comparison.holds(run, ['maybe']);
    };
  },
};
