import Foundation
import Synchronization

/// A small process that outlives us just long enough to stop the server and remove its directory.
///
/// It reads a socket whose other end only this process holds. We tell it which child is running; when the stream ends,
/// because we closed it or because we are dead, it sends that child SIGQUIT, then SIGKILL if need be, and removes
/// the directory. So there is one way of cleaning up, whatever ends us.
final class Keeper: Sendable {
  private let process: ChildProcess
  /// Our end of the socket, nil once closed.
  private let channel: Mutex<Int32?>

  /// $1 is the directory. A zombie counts as gone: nobody may be there to reap it. A server that was killed leaves a
  /// SysV segment behind, named in line 7 of its postmaster.pid.
  private static let script = """
    trap '' HUP INT TERM QUIT
    pid=0
    while read -r line; do pid=$line; done
    running() {
      [ "$pid" -gt 0 ] && read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
      case $stat in *') Z '*) return 1 ;; esac
    }
    tries=0
    while running && [ "$tries" -lt 400 ]; do
      if [ "$tries" -lt 200 ]; then kill -QUIT "$pid"; else kill -KILL "$pid"; fi
      tries=$((tries + 1))
      sleep 0.05
    done
    segment=$(sed -n '7s/.* //p' "$1/data/postmaster.pid")
    [ -z "$segment" ] || ipcrm -m "$segment"
    rm -rf "$1" || { sleep 1; rm -rf "$1"; }
    """

  init(directory: URL) throws {
    var ends: [Int32] = [-1, -1]
    // No other child may inherit our end, or the keeper would wait for that child too.
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
      throw EmbeddedPostgresError.systemCall("socketpair", errno: errno)
    }
    defer { close(ends[0]) }
    do {
      process = try ChildProcess(
        ["/bin/sh", "-c", Self.script, "martlet-keeper", directory.path],
        in: URL(fileURLWithPath: "/"),
        input: ends[0],
        output: URL(fileURLWithPath: "/dev/null")
      )
    } catch {
      close(ends[1])
      throw error
    }
    channel = Mutex(ends[1])
  }

  deinit {
    channel.withLock { if let end = $0 { close(end) } }
  }

  /// Says which child must not outlive us; nil for none.
  func watch(_ pid: pid_t?) {
    let line = Array("\(pid ?? 0)\n".utf8)
    // A keeper that is gone cannot be told anything, and that must not kill us.
    channel.withLock { if let end = $0 { _ = send(end, line, line.count, Int32(MSG_NOSIGNAL)) } }
  }

  /// Lets the keeper clean up and waits until it has.
  func finish() async {
    channel.withLock { end in
      if let open = end { close(open) }
      end = nil
    }
    // Unstructured, because a cancelled caller would otherwise not wait.
    _ = await Task { try? await process.waitForExit(within: .seconds(60)) }.value
  }
}
