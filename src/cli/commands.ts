/** The commands of `sluice`, each loaded when it is run and no other with it. */
import type { Command } from './command.ts'

interface Listed {
  readonly about: string
  load(): Promise<Command>
}

export const COMMANDS: Readonly<Record<string, Listed>> = {
  serve: {
    about: 'Serve a data folder over HTTP, with the dashboard.',
    load: async () => (await import('./serve.ts')).serve,
  },
  keys: {
    about: 'Make, list and revoke the API keys of a server.',
    load: async () => (await import('./keys.ts')).keys,
  },
  publish: {
    about: 'Send a message to a topic or a job to a queue, or one for each line of the input.',
    load: async () => (await import('./publish.ts')).publish,
  },
  work: {
    about: 'Work on a queue with a program that is run for each job.',
    load: async () => (await import('./work.ts')).work,
  },
  tail: { about: 'Print the messages of a topic as they come.', load: async () => (await import('./tail.ts')).tail },
  jobs: {
    about: 'Show, explain, wait for or cancel a job; dead letters, redrive, pause and resume of a queue.',
    load: async () => (await import('./jobs.ts')).jobs,
  },
  move: {
    about: 'Move the jobs of a queue to another folder, server or broker.',
    load: async () => (await import('./move.ts')).move,
  },
  queues: {
    about: 'List the queues, how deep they are and how fast they drain.',
    load: async () => (await import('./list.ts')).queues,
  },
  topics: { about: 'List the topics, with their groups.', load: async () => (await import('./list.ts')).topics },
  groups: {
    about: 'List, move, pause and forget the groups of topics.',
    load: async () => (await import('./groups.ts')).groups,
  },
  backup: {
    about: 'Copy everything into a file while the work goes on.',
    load: async () => (await import('./backup.ts')).backup,
  },
  restore: {
    about: 'Make a data folder of a backup.',
    load: async () => (await import('./backup.ts')).restore,
  },
  verify: {
    about: 'Check a data folder, a backup, a server or a broker, and change nothing.',
    load: async () => (await import('./verify.ts')).verify,
  },
  schedules: {
    about: 'List the schedules, with their next ticks.',
    load: async () => (await import('./schedules.ts')).schedules,
  },
  bench: {
    about: 'Measure this machine and engine: publish, end to end, latency.',
    load: async () => (await import('./bench.ts')).bench,
  },
  lab: {
    about: 'Show what happens when jobs are created faster than they are done, by doing it.',
    load: async () => (await import('./lab.ts')).lab,
  },
  'webhook-secret': {
    about: 'Show or rotate the secret that callbacks of a data folder are signed with.',
    load: async () => (await import('./webhook-secret.ts')).webhookSecret,
  },
}
