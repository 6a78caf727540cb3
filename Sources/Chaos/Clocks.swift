import Foundation
import Rig

/// The clocks of the dispatchers' hosts, each set by a file that a library loaded into the dispatcher reads.
struct Clocks: Sendable {
  /// Beside the executable, where the build puts it; nil if it was not built.
  static var library: String? {
    guard let program = try? Executable.path() else { return nil }
    let library = URL(fileURLWithPath: program).deletingLastPathComponent().appendingPathComponent("libHostClock.so")
    return FileManager.default.isReadableFile(atPath: library.path) ? library.path : nil
  }

  let library: String
  let directory: URL

  init(library: String, directory: URL) throws {
    self.library = library
    self.directory = directory
    for place in 0..<Crew.size { try set(place, bySeconds: 0) }
  }

  func prefix(_ place: Int) -> [String] {
    ["env", "LD_PRELOAD=\(library)", "MARTLET_HOST_CLOCK=\(file(place).path)"]
  }

  /// In place, since the file is mapped.
  func set(_ place: Int, bySeconds seconds: Int) throws {
    let descriptor = open(file(place).path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw ChaosError("no clock: \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    var value = Int64(seconds)
    guard write(descriptor, &value, 8) == 8 else { throw ChaosError("no clock: \(String(cString: strerror(errno)))") }
  }

  private func file(_ place: Int) -> URL { directory.appendingPathComponent("clock-\(place)") }
}
