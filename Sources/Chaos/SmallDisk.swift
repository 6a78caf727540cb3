import EmbeddedPostgres
import Foundation

/// A file system in memory that is small enough to be filled.
struct SmallDisk: Sendable {
  static let megabytes = 224

  let directory: URL
  private let scratch: URL

  /// nil if we may not mount.
  init?(logs: URL) async throws {
    guard geteuid() == 0 else { return nil }
    scratch = logs
    var path = Array("/tmp/martlet-disk-XXXXXX".utf8CString)
    guard mkdtemp(&path) != nil else { throw ChaosError("no directory could be made in /tmp") }
    directory = URL(fileURLWithPath: String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    let options = "size=\(Self.megabytes)m,mode=0755"
    guard try await run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory.path]) else {
      try? FileManager.default.removeItem(at: directory)
      return nil
    }
  }

  private var ballast: URL { directory.appendingPathComponent("ballast") }

  /// Takes all the room there is, again and again, as what others free would be room.
  func fill() throws {
    let descriptor = open(ballast.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw ChaosError("the disk cannot be filled: \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    for size in [1 << 20, 1 << 12] {
      let zeros = [UInt8](repeating: 0, count: size)
      while write(descriptor, zeros, size) > 0 {}
    }
  }

  func makeRoom() throws { try FileManager.default.removeItem(at: ballast) }

  func remove() async {
    // Lazily: a keeper may still be at work in it.
    _ = try? await run(["umount", "-l", directory.path])
    try? FileManager.default.removeItem(at: directory)
  }

  private func run(_ arguments: [String]) async throws -> Bool {
    let child = try ChildProcess(arguments, in: scratch, output: scratch.appendingPathComponent("mount.log"))
    return try await child.waitForExit(within: .seconds(20)) == .exited(0)
  }
}
