// Jest 30.5 strips types by itself when no transformer claims a file, so there is none.
export default {
  testEnvironment: 'node',
  transform: {},
  // A hang is a failure; a busy machine is not.
  testTimeout: 60_000,
  extensionsToTreatAsEsm: ['.ts'],
  testMatch: ['**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/', '<rootDir>/build/'],
  modulePathIgnorePatterns: ['<rootDir>/build/'],
};
