import CLibCurl
import Foundation

/// What a figure was measured on. Without it, it means nothing.
package struct Machine: Sendable, Codable {
  package var cpu: String
  package var cores: Int
  package var kernel: String
  /// Runnable threads over the last minute, before the run: what else the machine was doing.
  package var loadBefore: Double
  package var martlet: String
  package var curl: String
  package var postgres: String
  package var nginx: String?
  /// Settings of PostgreSQL that differ from its defaults, and those that everybody asks for.
  package var settings: [String: String]

  package init(version: String, postgres: String, nginx: String?, settings: [String: String]) {
    let info = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let model = info.split(separator: "\n").first { $0.hasPrefix("model name") }
    cpu = model?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
    cores = ProcessInfo.processInfo.activeProcessorCount
    kernel =
      (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8))?
      .trimmingCharacters(in: .whitespacesAndNewlines) ?? "unknown"
    let load = (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8)) ?? ""
    loadBefore = load.split(separator: " ").first.flatMap { Double($0) } ?? .nan
    martlet = version
    curl = curl_version().map { String(cString: $0) }?.split(separator: " ").first.map(String.init) ?? "libcurl"
    self.postgres = postgres
    self.nginx = nginx
    self.settings = settings
  }

  package var text: String {
    """
    machine     \(cores) cores, \(cpu), Linux \(kernel), load before \(loadBefore.text(2))
    versions    martlet \(martlet), \(curl), PostgreSQL \(postgres)\(nginx.map { ", \($0)" } ?? "")
    postgres    \(settings.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ", "))
    """
  }
}
