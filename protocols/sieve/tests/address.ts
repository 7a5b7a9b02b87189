/** RFC 5228 5.1 `address`, with `:index` (RFC 5260 6), `:mime` (RFC 5703 4.2) and the parts of RFC 5233. */
import { type MailboxAddress, mailboxesOf, parseAddressList, rawToUnicode } from '../../message/index.js';
import type { CompileContext, Run, TestDefinition, Text } from '../contract.js';
import {
  type AddressPartOf,
  addressPartOf,
  addressPartTags,
  comparisonOf,
  comparisonTags,
  indexTags,
  mimeTags,
} from '../matching/index.js';
import { after } from '../maybe.js';
import { type Fields, fieldSource, spendReading } from './fields.js';

/** Fields of which it is known that they have no addresses; all others are read as address lists. */
const fieldsWithoutAddresses = new Set([
  'auto-submitted',
  'comments',
  'content-description',
  'content-disposition',
  'content-id',
  'content-transfer-encoding',
  'content-type',
  'date',
  'in-reply-to',
  'keywords',
  'list-id',
  'message-id',
  'mime-version',
  'received',
  'references',
  'resent-date',
  'resent-message-id',
  'subject',
]);

/** Addresses of one field that are looked at. */
const maxAddresses = 10_000;
/** Taking an address list apart costs some ten times what comparing it does. */
const parsedCharsPerStep = 10;

export const address: TestDefinition = {
  name: 'address',
  tags: { ...comparisonTags, ...addressPartTags, ...indexTags, ...mimeTags },
  positional: [
    { name: 'header-names', type: 'strings' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    for (const name of arguments_.texts('header-names')!) refuseOthers(name, context);
    const source = fieldSource(arguments_, context, 'header-names');
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    // RFC 5231 4.2: mailboxes are counted, whatever part is asked for.
    const partOf = addressPartOf(arguments_, context.options.subaddressSeparator ?? '+');
    return (run) =>
      after(source(run), (fields) => {
        spendReading(run, fields);
        return comparison.holds(run, addresses(run, fields, comparison.onlyCounts ? anyAddress : partOf));
      });
  },
};

/** RFC 5228 5.1: only fields that have addresses. */
function refuseOthers(name: Text, context: CompileContext): void {
  if (name.constant !== undefined && fieldsWithoutAddresses.has(name.constant.toLowerCase())) {
    context.fail(`the field '${name.constant}' has no addresses`, name.at);
  }
}

const anyAddress: AddressPartOf = ({ local, domain }) => (local === '' && domain === '' ? undefined : '');

function* addresses(run: Run, fields: readonly Fields[], partOf: AddressPartOf): Generator<string> {
  for (const { values } of fields) {
    for (const value of values) if (value.length >= parsedCharsPerStep) run.spend(Math.floor(value.length / parsedCharsPerStep));
    for (const mailbox of mailboxesIn(values)) {
      const part = mailbox === nullPath ? (partOf === anyAddress ? undefined : '') : partOf(mailbox);
      if (part !== undefined) yield part;
    }
  }
}

type Mailbox = Pick<MailboxAddress, 'name' | 'local' | 'domain'>;

/** Return-Path of a bounce: no address, and not nothing. */
const nullPath: Mailbox = { name: null, local: '', domain: '' };

/** By what the header gives for a name, which is the same until it is edited: scripts ask for few fields, many times. */
const parsed = new WeakMap<readonly string[], readonly Mailbox[]>();

function mailboxesIn(values: readonly string[]): readonly Mailbox[] {
  let mailboxes = parsed.get(values);
  if (!mailboxes) parsed.set(values, (mailboxes = values.flatMap(readMailboxes)));
  return mailboxes;
}

function readMailboxes(raw: string): Mailbox[] {
  if (raw === '<>') return [nullPath];
  return mailboxesOf(parseAddressList(raw, maxAddresses)).map(({ name, local, domain }) => ({
    name: name && rawToUnicode(name),
    local: rawToUnicode(local),
    domain: rawToUnicode(domain),
  }));
}
