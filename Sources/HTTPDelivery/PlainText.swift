/// Makes text that came from elsewhere fit to be shown: one line, no control characters, bounded.
enum PlainText {
  static func sanitized(_ text: String, limitBytes: Int) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      let width = UTF8.width(scalar)
      guard result.utf8.count + width <= limitBytes else { return result + "…" }
      // Also C1 controls and the marks that reverse or hide text on a terminal.
      let isControl = scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format
      result.unicodeScalars.append(isControl ? " " : scalar)
    }
    return result
  }
}
