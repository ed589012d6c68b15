/**
 * A second hold on a data folder, beside the log's own lock.
 *
 * The log's lock is a POSIX record lock, and those have a trap: when a process closes any descriptor of a locked file,
 * its locks on that file are gone. A service that copies its own open folder as a backup does just that, and a second
 * process could then open the folder and both would write. On Linux the thread therefore also binds a socket in the
 * abstract namespace, named after the folder's device and inode: nothing but the end of the process or `close` gives it
 * up, and no file is left behind. Elsewhere there is only the lock. It is one hold for each network namespace: two
 * containers that share a folder have only the lock between them.
 */
import { statSync } from 'node:fs'
import { createServer } from 'node:net'
import { lockedError } from '../logs/sqlite/owner-lock.ts'

export interface FolderHold {
  close(): void
}

/** Holds a folder that is there. Throws `LOCKED` where another process, or another thread of this one, holds it. */
export async function holdFolder(folder: string): Promise<FolderHold> {
  if (process.platform !== 'linux') return { close: () => {} }
  const { dev, ino } = statSync(folder, { bigint: true })
  const server = createServer((socket) => socket.destroy())
  server.unref()
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') reject(lockedError(folder, error))
      // No sockets here (a sandbox forbids them): the log's lock stands alone.
      else resolve()
    })
    server.listen({ path: `\0sluice-${dev}-${ino}` }, resolve)
  })
  return { close: () => server.close() }
}
