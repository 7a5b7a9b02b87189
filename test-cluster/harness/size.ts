/** How much a scenario plays with: as much as it takes to prove the point, or with `STARLING_FULL_SIZE=1` as much as was once shown. */
export const sized = (usual: number, full: number): number => (process.env['STARLING_FULL_SIZE'] === '1' ? full : usual);
