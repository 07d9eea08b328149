from tools.site import main

main()
