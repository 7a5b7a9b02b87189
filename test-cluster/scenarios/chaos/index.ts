/** All scenarios by name, in the order in which `all` plays them. */
import type { Scenario } from '../../chaos/stage.js';
import { clockSkew } from './clock-skew.js';
import { diskFull } from './disk-full.js';
import { flapping } from './flapping.js';
import { join } from './join.js';
import { killAll } from './kill-all.js';
import { killOne } from './kill-one.js';
import { gossipCut, partitionHalves, partitionOneWay, partitionPeers } from './partition-peers.js';
import { partitionStore } from './partition-store.js';
import { pauseLong, pauseShort } from './pause.js';
import { drain, rollingRestart, rollingUpgrade } from './restarts.js';
import { slowNode } from './slow-node.js';
import { storeDown, storeRestart } from './store-outage.js';
import { threeAtOnce } from './three-at-once.js';

export const scenarios: readonly Scenario[] = [
  killOne,
  killAll,
  pauseLong,
  pauseShort,
  partitionPeers,
  partitionStore,
  partitionHalves,
  partitionOneWay,
  gossipCut,
  flapping,
  storeRestart,
  storeDown,
  clockSkew,
  slowNode,
  diskFull,
  drain,
  rollingRestart,
  rollingUpgrade,
  join,
  threeAtOnce,
];
