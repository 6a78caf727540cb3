import EmbeddedPostgres
import Foundation

/// A name server that takes every question and answers none, and what makes one process alone ask it: a mount namespace of
/// its own, with its own /etc/resolv.conf and /etc/nsswitch.conf. Names in /etc/hosts and addresses work there as before.
final class SilentNameServer: Sendable {
  /// Two, as most hosts have. A question is repeated, five seconds apart, twice to each: glibc's defaults.
  private static let addresses: [UInt32] = [0x7f35_3535, 0x7f35_3536]
  private let sockets: [Int32]
  /// What a command line begins with to be run there.
  let prefix: [String]

  /// Throws, with the reason in words, if it cannot be done here.
  init(in directory: URL, launcher: ChildLauncher) async throws {
    sockets = try Self.listen()
    let resolver = directory.appendingPathComponent("resolv.conf")
    let lines = Self.addresses.map { "nameserver \(dotted($0))\n" }.joined()
    try Data(lines.utf8).write(to: resolver)
    let services = directory.appendingPathComponent("nsswitch.conf")
    try Data("hosts: files dns\n".utf8).write(to: services)
    prefix =
      ["unshare", "--mount", "--propagation", "private"] + (geteuid() == 0 ? [] : ["--map-root-user"])
      + [
        "sh", "-c",
        """
        mount --bind "$0" /etc/resolv.conf && mount --bind "$1" /etc/nsswitch.conf && shift && \
        exec setpriv --pdeathsig TERM -- "$@"
        """,
        resolver.path, services.path,
      ]
    let probe = try await launcher.launch(prefix + ["true"], log: "namespace.log")
    guard try await probe.waitForExit(within: .seconds(10)) == .exited(0) else {
      throw BenchError("needs a mount namespace: \(await launcher.output("namespace.log"))")
    }
  }

  deinit { for socket in sockets { close(socket) } }

  private static func listen() throws -> [Int32] {
    var sockets: [Int32] = []
    for address in addresses {
      let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      sockets.append(descriptor)
      guard descriptor >= 0, withLoopback(53, address, { bind(descriptor, $0, $1) }) == 0 else {
        let reason = String(cString: strerror(errno))
        for socket in sockets { close(socket) }
        throw BenchError("needs a socket on port 53 (root, or CAP_NET_BIND_SERVICE): \(reason)")
      }
    }
    return sockets
  }
}
