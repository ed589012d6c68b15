/** The heart of the engine over HTTP: its keeper is in a thread of its own, with a connection of its own. */
import { Worker } from 'node:worker_threads'
import { Heart } from '../heart/heart.ts'
import type { HeartSeat } from '../heart/messages.ts'

export interface HeartData {
  /** The address of the server. */
  readonly url: string
  /** The key that it is shown, if any. */
  readonly credential: string | undefined
  readonly seat: HeartSeat
}

export interface RemoteHeart {
  readonly heart: Heart
  close(): Promise<void>
}

export function openRemoteHeart(url: URL, credential?: string): RemoteHeart {
  let thread: Worker | null = null
  const heart = new Heart((seat) => {
    thread = startThread({ url: url.href, credential, seat })
  })
  return {
    heart,
    async close() {
      heart.close()
      await thread?.terminate()
    },
  }
}

function startThread(data: HeartData): Worker {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const thread = new Worker(new URL(`./heart-thread.${extension}`, import.meta.url), {
    workerData: data,
    transferList: [data.seat.port],
    execArgv: [],
    name: 'sluice-heart',
  })
  thread.unref()
  // Its port closes with it, and the heart keeps nothing any more.
  thread.on('error', () => {})
  return thread
}
