import { describe, expect, it } from 'vitest';
import { UsageError } from '../harness/usage.js';
import { parseClusterArguments } from './arguments.js';
import { withoutPassword } from './shared-store.js';

describe('what `npm run cluster` takes', () => {
  it('has defaults', () => {
    expect(parseClusterArguments([])).toMatchObject({
      nodes: 3,
      store: 'postgres',
      data: expect.stringMatching(/^\/.*data\/cluster$/),
      portOffset: 0,
      password: undefined,
      restartAfterSeconds: undefined,
      json: false,
    });
  });

  it('is what the contract says', () => {
    const line = '--nodes 5 --store foundationdb --cluster-file f --data /d --port-offset 100 --password pw --restart 2 --json';
    expect(parseClusterArguments(line.split(' '))).toEqual({
      nodes: 5,
      store: 'foundationdb',
      clusterFile: 'f',
      postgresUrl: undefined,
      data: '/d',
      portOffset: 100,
      password: 'pw',
      restartAfterSeconds: 2,
      json: true,
    });
  });

  it.each([
    ['--nodes 0'],
    ['--nodes 21'],
    ['--nodes three'],
    ['--store embedded'],
    ['--cluster-file f'],
    ['--store foundationdb --postgres-url postgres://h/d'],
    ['--postgres-url http://h/d'],
    ['--port-offset 62000'],
    ['--restart -1'],
    ['--restart=-1'],
    ['--password='],
    ['--what'],
    ['three'],
  ])('%s is wrong usage', (line) => {
    expect(() => parseClusterArguments(line.split(' '))).toThrow(UsageError);
  });

  it('answers nothing when help is wanted', () => {
    expect(parseClusterArguments(['--help'])).toBeUndefined();
  });
});

describe('an address for people', () => {
  it.each([
    ['postgres://u:secret@h:5432,i/d', 'postgres://u:***@h:5432,i/d'],
    ['postgres://u@h/d?password=secret&x=1', 'postgres://u@h/d?password=***&x=1'],
    ['postgres://u@h/d', 'postgres://u@h/d'],
  ])('%s', (url, shown) => {
    expect(withoutPassword(url)).toBe(shown);
  });
});
