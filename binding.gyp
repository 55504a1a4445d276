{
  # For tools that expect node-gyp: hands over to CMake, which holds the only list of native sources.
  "targets": [
    {
      "target_name": "engine",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/engine.node"],
          "action": ["npm", "run", "build:native"]
        }
      ]
    }
  ]
}
