/** RFC 5490 3.1 `mailboxexists`, RFC 9042 4 `mailboxidexists`, RFC 8579 3 `specialuse_exists`. */
import type { Run, SieveHost, TestDefinition, Text } from '../contract.js';
import { stepsPerQuestion } from '../limits.js';
import { every } from '../maybe.js';

type Wanted = Parameters<NonNullable<SieveHost['hasMailbox']>>[0];

/** Whether there is a mailbox for each of the texts. */
function hasAll(run: Run, texts: readonly Text[], wanted: (text: string) => Wanted) {
  return every(texts, (text) => {
    run.spend(stepsPerQuestion);
    return run.input.host?.hasMailbox?.(wanted(text.of(run))) ?? false;
  });
}

export const mailboxExists: TestDefinition = {
  name: 'mailboxexists',
  positional: [{ name: 'mailboxes', type: 'strings' }],
  compile(arguments_) {
    const mailboxes = arguments_.texts('mailboxes')!;
    return (run) => hasAll(run, mailboxes, (name) => ({ name }));
  },
};

export const mailboxIdExists: TestDefinition = {
  name: 'mailboxidexists',
  positional: [{ name: 'ids', type: 'strings' }],
  compile(arguments_) {
    const ids = arguments_.texts('ids')!;
    return (run) => hasAll(run, ids, (mailboxId) => ({ mailboxId }));
  },
};

/** Without the name of a mailbox, each use may be another mailbox's. */
export const specialUseExists: TestDefinition = {
  name: 'specialuse_exists',
  positional: [
    { name: 'mailbox', type: 'string', isOptional: true },
    { name: 'uses', type: 'strings' },
  ],
  compile(arguments_) {
    const mailbox = arguments_.text('mailbox');
    const uses = arguments_.texts('uses')!;
    return (run) => {
      const name = mailbox?.of(run);
      return hasAll(run, uses, (specialUse) => (name === undefined ? { specialUse } : { name, specialUse }));
    };
  },
};
