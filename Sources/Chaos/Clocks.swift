import Foundation

/// The clocks of the dispatchers' hosts, each set by a file that libfaketime reads.
struct Clocks: Sendable {
  /// nil if libfaketime is not installed.
  static let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
    .map { "/usr/lib/\($0)/faketime/libfaketimeMT.so.1" }.first { FileManager.default.isReadableFile(atPath: $0) }

  let library: String
  let directory: URL

  init(library: String, directory: URL) throws {
    self.library = library
    self.directory = directory
    for place in 0..<Crew.size { try set(place, bySeconds: 0) }
  }

  /// Only the time of day: the monotonic clock does not jump when somebody sets a host's clock.
  func prefix(_ place: Int) -> [String] {
    [
      "env", "LD_PRELOAD=\(library)", "FAKETIME_TIMESTAMP_FILE=\(file(place).path)", "FAKETIME_NO_CACHE=1",
      "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]
  }

  func set(_ place: Int, bySeconds seconds: Int) throws {
    try Data("\(seconds < 0 ? "" : "+")\(seconds)\n".utf8).write(to: file(place), options: .atomic)
  }

  private func file(_ place: Int) -> URL { directory.appendingPathComponent("clock-\(place)") }
}
