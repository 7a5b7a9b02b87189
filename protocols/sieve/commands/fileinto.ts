/** RFC 5228 4.1 `fileinto`, with `:copy` (RFC 3894), `:create` (5490), `:flags` (5232), `:specialuse` (8579), `:mailboxid` (9042). */
import { type CommandDefinition, type CompileContext, SieveRunError, type Text } from '../contract.js';
import { flagsTag, storedFlags } from './flags.js';

const maxMailboxBytes = 4096;

export const fileinto: CommandDefinition = {
  name: 'fileinto',
  requires: ['fileinto'],
  tags: {
    copy: { requires: 'copy' },
    create: { requires: 'mailbox' },
    flags: flagsTag,
    specialuse: { requires: 'special-use', value: 'string' },
    mailboxid: { requires: 'mailboxid', value: 'string' },
  },
  positional: [{ name: 'mailbox', type: 'string' }],
  compile(arguments_, context) {
    const mailbox = mailboxOf(arguments_.text('mailbox')!, context);
    const isCopy = arguments_.hasTag('copy');
    const creates = arguments_.hasTag('create');
    const flags = storedFlags(arguments_, context);
    const specialUse = arguments_.text('specialuse');
    if (specialUse?.constant !== undefined && !isSpecialUse(specialUse.constant)) {
      context.fail(`'${specialUse.constant.slice(0, 64)}' is no special use, as '\\Junk' is one`, specialUse.at);
    }
    const mailboxId = arguments_.text('mailboxid');
    // RFC 9042 4: only one of them can say which mailbox is meant instead of the named one.
    if (specialUse && mailboxId) context.fail("':specialuse' and ':mailboxid' exclude one another", mailboxId.at);
    return (run) => {
      const use = specialUse?.of(run);
      if (use !== undefined && !isSpecialUse(use))
        throw new SieveRunError(`'${use.slice(0, 64)}' is no special use`, specialUse!.at);
      run.act({
        kind: 'fileinto',
        mailbox: mailbox(run),
        isCopy,
        creates,
        ...(flags && { flags: flags(run) }),
        ...(use !== undefined && { specialUse: use }),
        ...(mailboxId && { mailboxId: mailboxId.of(run) }),
      });
      if (!isCopy) run.isImplicitKeepCancelled = true;
    };
  },
};

/** RFC 8579 2: an attribute of RFC 6154. */
function isSpecialUse(text: string): boolean {
  return /^\\[a-z][a-z0-9_.-]{0,63}$/i.test(text);
}

function mailboxOf(text: Text, context: CompileContext): Text['of'] {
  const { constant, at } = text;
  if (constant !== undefined && !isMailboxName(constant)) context.fail('this is no name of a mailbox', at);
  return (run) => {
    const name = text.of(run);
    if (!isMailboxName(name)) throw new SieveRunError('this is no name of a mailbox', at);
    return name;
  };
}

/** Which names a server takes is its own matter; these none takes (RFC 5198 2, RFC 9051 5.1). */
function isMailboxName(name: string): boolean {
  return name !== '' && Buffer.byteLength(name) <= maxMailboxBytes && !/[\x00-\x1f\x7f]/.test(name);
}
