/** How the commands on whole stores are called; apart from what they need, so that help loads none of it. */
export const storeCommands = {
  copy: {
    usage: '--from ADDRESS --to ADDRESS [--online] [--blobs copy --blobs-directory DIR]',
    summary: 'copy a whole store into an empty one; again: go on',
  },
  backup: {
    usage: 'FILE|s3://BUCKET/KEY|- [--from ADDRESS] [--encrypt] [--without-blobs]',
    summary: 'write a consistent backup, also while nodes run',
  },
  verify: { usage: 'FILE|s3://BUCKET/KEY|-', summary: 'read a backup to its end and check it' },
  restore: {
    usage: 'FILE|s3://BUCKET/KEY|- [--to ADDRESS] [--blobs-directory DIR] [--blobs-bucket NAME] [--blobs-in-place]',
    summary: 'restore a backup into an empty store; again: go on',
  },
  restored: {
    usage: '',
    summary: 'after the store was put back by other means (fdbrestore, a copy of its files): mailboxes give no UID again',
  },
} as const;
