import EmbeddedPostgres
import Foundation
import Synchronization

/// A small process that kills our children should we die before them, whatever way.
///
/// It reads a socket until nobody can write to it any more. Every child announces its own process id there before it
/// becomes the program it is to run, so that there is no moment in which it could be forgotten.
package final class ChildKeeper: Sendable {
  private let keeper: ChildProcess
  private let channel: Mutex<Int32?>
  private let directory: URL

  private static let keeping = """
    trap '' HUP INT TERM QUIT
    kept=' '
    while read -r word pid; do
      case $word in
        began) kept="$kept$pid " ;;
        ended) case $kept in *" $pid "*) kept="${kept%% $pid *} ${kept#* $pid }" ;; esac ;;
      esac
    done
    for pid in $kept; do kill -KILL "$pid"; done
    """
  private static let announcing = "echo began $$ >&0; exec \"$@\" </dev/null"

  /// - Parameter directory: where children run.
  package init(directory: URL) throws {
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
      throw RigError("socketpair failed: \(String(cString: strerror(errno)))")
    }
    defer { close(ends[0]) }
    do {
      keeper = try ChildProcess(
        ["/bin/sh", "-c", Self.keeping, "martlet-child-keeper"],
        in: directory,
        input: ends[0],
        output: URL(fileURLWithPath: "/dev/null")
      )
    } catch {
      close(ends[1])
      throw error
    }
    channel = Mutex(ends[1])
    self.directory = directory
  }

  deinit { channel.withLock { if let end = $0 { close(end) } } }

  /// Starts a program. What it prints is appended to `log`.
  package func start(_ arguments: [String], log: URL) throws -> ChildProcess {
    try channel.withLock { end in
      guard let end else { preconditionFailure("start after finish") }
      return try ChildProcess(
        ["/bin/sh", "-c", Self.announcing, "sh"] + arguments,
        in: directory,
        input: end,
        output: log
      )
    }
  }

  /// The child has been reaped: its process id may be given to somebody else, whom the keeper must spare.
  package func forget(_ child: ChildProcess) {
    let line = Array("ended \(child.pid)\n".utf8)
    channel.withLock { if let end = $0 { _ = send(end, line, line.count, Int32(MSG_NOSIGNAL)) } }
  }

  /// Has the keeper kill what is left, and waits until it has.
  package func finish() async {
    channel.withLock { end in
      if let open = end { close(open) }
      end = nil
    }
    // Unstructured, because a cancelled caller would otherwise not wait.
    _ = await Task { try? await keeper.waitForExit(within: .seconds(10)) }.value
  }
}
