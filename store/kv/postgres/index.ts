/** The public face of the PostgreSQL backend. */
export { roundTrips } from './metrics.js';
export { openPostgresStore, type PostgresStoreOptions } from './store.js';
