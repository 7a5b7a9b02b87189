/** RFC 5228 5.4 `envelope`, with the parts of RFC 6009 (`envelope-dsn`, `envelope-deliverby`) and `auth`, the login that has submitted the message. */
import { parseAddressList } from '../../message/index.js';
import type { CompileContext, Run, TestDefinition, Text } from '../contract.js';
import { type AddressPartOf, addressPartOf, addressPartTags, comparisonOf, comparisonTags } from '../matching/index.js';

/** Part → the extension that it is of, '' for `envelope` itself. */
const parts: ReadonlyMap<string, string> = new Map([
  ['from', ''],
  ['to', ''],
  ['auth', ''],
  ['notify', 'envelope-dsn'],
  ['orcpt', 'envelope-dsn'],
  ['ret', 'envelope-dsn'],
  ['envid', 'envelope-dsn'],
  ['bytimeabsolute', 'envelope-deliverby'],
  ['bytimerelative', 'envelope-deliverby'],
  ['bymode', 'envelope-deliverby'],
  ['bytrace', 'envelope-deliverby'],
]);
const partsWithAddresses = new Set(['from', 'to', 'orcpt', 'auth']);

export const envelope: TestDefinition = {
  name: 'envelope',
  tags: { ...comparisonTags, ...addressPartTags },
  positional: [
    { name: 'envelope-parts', type: 'strings' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const names = arguments_.texts('envelope-parts')!;
    const addressPart = arguments_.tagOf('address-part') ?? 'all';
    for (const name of names) checkPart(name, addressPart, context);
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    const partOf = addressPartOf(arguments_, context.options.subaddressSeparator ?? '+');
    return (run) => {
      const values: string[] = [];
      for (const name of names) collect(run, name.of(run).toLowerCase(), addressPart === 'all' ? undefined : partOf, values);
      // RFC 5231 4.2: an empty reverse-path counts as none.
      return comparison.holds(run, comparison.onlyCounts ? values.filter((value) => value !== '') : values);
    };
  },
};

/** RFC 5228 5.4: unknown parts are an error. */
function checkPart({ constant, at }: Text, addressPart: string, context: CompileContext): void {
  if (constant === undefined) return;
  const name = constant.toLowerCase();
  const extension = parts.get(name);
  if (extension === undefined) context.fail(`an envelope has no part '${constant.slice(0, 64)}'`, at);
  if (extension !== '' && !context.hasRequired(extension)) {
    context.fail(`the part '${name}' needs 'require "${extension}";' at the script's start`, at);
  }
  if (addressPart !== 'all' && !partsWithAddresses.has(name))
    context.fail(`':${addressPart}' is for addresses, '${name}' is none`, at);
}

function collect({ input: { envelope } }: Run, name: string, partOf: AddressPartOf | undefined, values: string[]): void {
  if (!parts.has(name)) return;
  if (name === 'from') addAddress(envelope.from, partOf, values);
  else if (name === 'to') for (const to of envelope.to) addAddress(to, partOf, values);
  else {
    for (const value of envelope.parts?.[name] ?? []) {
      if (partOf) addAddress(name === 'orcpt' ? value.slice(value.indexOf(';') + 1) : value, partOf, values);
      else values.push(value);
    }
  }
}

/** RFC 5228 5.4: the empty reverse-path is '' whatever part is asked for; source routes are dropped. */
function addAddress(text: string | undefined, partOf: AddressPartOf | undefined, values: string[]): void {
  if (text === undefined) return;
  if (text === '' || (!partOf && !text.startsWith('@'))) {
    values.push(text);
    return;
  }
  const [mailbox] = parseAddressList(`<${text}>`, 1);
  if (mailbox?.kind !== 'mailbox') return;
  const value = partOf ? partOf(mailbox) : text.slice(text.indexOf(':') + 1);
  if (value !== undefined) values.push(value);
}
