/** RFC 8580: a copy of a message that a script has written (`vacation`, `notify`) is stored, as `fileinto` would. */
import type { Arguments, CompileContext, Run, TagSpec } from '../contract.js';
import { flagsIn } from './flags.js';

export interface Fcc {
  fcc?: string;
  fccFlags?: string[];
  fccCreates?: boolean;
}

export const fccTags: Readonly<Record<string, TagSpec>> = {
  fcc: { requires: 'fcc', value: 'string' },
  create: { requires: 'mailbox' },
  flags: { requires: 'imap4flags', value: 'strings' },
};

const none: Fcc = {};

export function fccOf(arguments_: Arguments, context: CompileContext): (run: Run) => Fcc {
  const mailbox = arguments_.text('fcc');
  if (!mailbox) {
    for (const tag of ['create', 'flags']) {
      if (arguments_.hasTag(tag)) context.fail(`':${tag}' needs ':fcc' beside it`, arguments_.tagAt(tag));
    }
    return () => none;
  }
  const flags = arguments_.texts('flags');
  const fccCreates = arguments_.hasTag('create');
  return (run) => ({
    fcc: mailbox.of(run),
    ...(flags && { fccFlags: flagsIn(flags.map((text) => text.of(run))) }),
    ...(fccCreates && { fccCreates }),
  });
}
