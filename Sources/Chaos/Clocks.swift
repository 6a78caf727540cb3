import Foundation
import Rig

/// The clock of one process's host, set by a file that a library loaded into the process reads.
struct HostClock: Sendable {
  /// Beside the executable, where the build puts it; nil if it was not built.
  static var library: String? {
    guard let program = try? Executable.path() else { return nil }
    let library = URL(fileURLWithPath: program).deletingLastPathComponent().appendingPathComponent("libHostClock.so")
    return FileManager.default.isReadableFile(atPath: library.path) ? library.path : nil
  }

  let library: String
  let file: URL

  init(library: String, file: URL) throws {
    self.library = library
    self.file = file
    try set(bySeconds: 0)
  }

  /// The command that becomes the process.
  var prefix: [String] { ["env", "LD_PRELOAD=\(library)", "MARTLET_HOST_CLOCK=\(file.path)"] }

  /// In place, since the file is mapped.
  func set(bySeconds seconds: Int) throws {
    let descriptor = open(file.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw ChaosError("no clock: \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    var value = Int64(seconds)
    guard write(descriptor, &value, 8) == 8 else { throw ChaosError("no clock: \(String(cString: strerror(errno)))") }
  }
}

/// The clocks of the dispatchers' hosts.
struct Clocks: Sendable {
  private let clocks: [HostClock]

  init(library: String, directory: URL) throws {
    clocks = try (0..<Crew.size).map {
      try HostClock(library: library, file: directory.appendingPathComponent("clock-\($0)"))
    }
  }

  func prefix(_ place: Int) -> [String] { clocks[place].prefix }
  func set(_ place: Int, bySeconds seconds: Int) throws { try clocks[place].set(bySeconds: seconds) }
}
