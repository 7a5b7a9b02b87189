/** The tests that look at messages and their surroundings, by the extension that a script requires for them; and the commands that edit what they look at. */
import type { Extension } from '../contract.js';
import { editheader } from '../header-edits/index.js';
import { comparators } from '../matching/index.js';
import { address } from './address.js';
import { body } from './body.js';
import { currentdate } from './currentdate.js';
import { date } from './date.js';
import { envelope } from './envelope.js';
import { environment } from './environment.js';
import { exists } from './exists.js';
import { header } from './header.js';
import { size } from './size.js';
import { spamtest, virustest } from './spamtest.js';
import { validExtList } from './valid-ext-list.js';

export { spamPercentItem, spamScoreItem, virusScoreItem } from './spamtest.js';
export { timeZoneItem } from './zones.js';

/** Extensions without tests of their own give tagged arguments, parts of the envelope, or comparators to others. */
export const testExtensions: readonly Extension[] = [
  { name: '', tests: [address, exists, header, size] },
  { name: 'envelope', tests: [envelope] },
  { name: 'envelope-dsn' },
  { name: 'envelope-deliverby' },
  { name: 'body', tests: [body] },
  { name: 'date', tests: [date, currentdate] },
  editheader,
  { name: 'index' },
  { name: 'environment', tests: [environment] },
  { name: 'mime' },
  { name: 'relational' },
  { name: 'regex' },
  { name: 'subaddress' },
  { name: 'extlists', tests: [validExtList] },
  { name: 'spamtest', tests: [spamtest] },
  { name: 'spamtestplus', tests: [spamtest] },
  { name: 'virustest', tests: [virustest] },
  // RFC 5228 2.7.3: all scripts have the first two, and may require them.
  ...comparators.map(({ name }) => ({ name: `comparator-${name}` })),
];
