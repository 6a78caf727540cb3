import CLibCurl

/// libcurl's process-wide state.
enum CurlLibrary {
  private static let started: Void = {
    let code = curl_global_init(Int(CURL_GLOBAL_DEFAULT))
    precondition(code == CURLE_OK, "libcurl could not be initialised: code \(code.rawValue)")
  }()

  /// Initialises libcurl once; a lazy global is initialised by one thread while others wait.
  static func start() { _ = started }

  /// True if libcurl was built to trust a certificate bundle in a single file.
  static let hasBundledAuthorities = curl_version_info(CURLVERSION_TENTH).pointee.cainfo != nil
}
